using System.Text;
using YamlDotNet.RepresentationModel;

namespace Tensormesh.Agent.Cluster;

/// <summary>
/// The current context of a kubeconfig file, for an agent that runs outside a pod: a server with its authority, and a token or a certificate.
/// What would have other programs run or other servers asked is refused by name, not passed over.
/// </summary>
internal static class Kubeconfig
{
    private static readonly string[] NotUnderstood = ["exec", "auth-provider", "username", "as", "proxy-url", "tls-server-name", "insecure-skip-tls-verify"];

    /// <exception cref="InvalidDataException">It lacks something, or says something that is not understood.</exception>
    public static ApiServerConnection Read(string file)
    {
        var yaml = new YamlStream();
        using (var text = File.OpenText(file)) yaml.Load(text);
        if (yaml.Documents is not [{ RootNode: YamlMappingNode root }]) throw new InvalidDataException("it is no YAML mapping");
        var context = Named(root, "contexts", "context", Text(root, "current-context") ?? throw new InvalidDataException("it has no current-context"));
        var cluster = Named(root, "clusters", "cluster", Text(context, "cluster") ?? "");
        var user = Named(root, "users", "user", Text(context, "user") ?? "");
        if (NotUnderstood.FirstOrDefault(key => Text(cluster, key) is not null || user.Children.ContainsKey(key)) is { } key)
            throw new InvalidDataException($"'{key}' in it is not understood: use a token or a client certificate");
        if (!Uri.TryCreate(Text(cluster, "server"), UriKind.Absolute, out var server)) throw new InvalidDataException("the server in it is no address");

        var folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
        var (certificate, secret) = (Pem(user, "client-certificate", folder), Pem(user, "client-key", folder));
        return new ApiServerConnection(
            server, Pem(cluster, "certificate-authority", folder), Token(user, folder),
            certificate is not null && secret is not null ? (certificate, secret) : null);
    }

    private static Func<string>? Token(YamlMappingNode user, string folder)
    {
        if (Text(user, "tokenFile") is { } path) return () => File.ReadAllText(Path.Combine(folder, path));
        return Text(user, "token") is { } token ? () => token : null;
    }

    private static string? Pem(YamlMappingNode node, string key, string folder)
    {
        if (Text(node, $"{key}-data") is { } data) return Encoding.ASCII.GetString(Convert.FromBase64String(data));
        return Text(node, key) is { } path ? File.ReadAllText(Path.Combine(folder, path)) : null;
    }

    private static YamlMappingNode Named(YamlMappingNode root, string list, string kind, string name)
    {
        var entries = root.Children.TryGetValue(list, out var value) && value is YamlSequenceNode sequence ? sequence.OfType<YamlMappingNode>() : [];
        return entries.FirstOrDefault(entry => Text(entry, "name") == name) is { } found
            && found.Children.TryGetValue(kind, out var content) && content is YamlMappingNode mapping
            ? mapping : throw new InvalidDataException($"there is no {kind} '{name}' in it");
    }

    private static string? Text(YamlMappingNode node, string key) =>
        node.Children.TryGetValue(key, out var value) && value is YamlScalarNode { Value: { Length: > 0 } text } ? text : null;
}
