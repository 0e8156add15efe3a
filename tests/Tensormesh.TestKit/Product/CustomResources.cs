using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>Installs the committed CRDs.</summary>
public static class CustomResources
{
    private static readonly TimeSpan EstablishLimit = TimeSpan.FromSeconds(30);

    /// <summary>Applies every file of the folder and waits until the server serves the kinds.</summary>
    /// <returns>The definitions that were not there before.</returns>
    public static async Task<IReadOnlyList<string>> ApplyAsync(IKubernetes client, string folder, CancellationToken cancellation)
    {
        List<string> created = [];
        foreach (var file in Directory.EnumerateFiles(folder, "*.yaml").Where(file => Path.GetFileName(file) != "kustomization.yaml").Order(StringComparer.Ordinal))
        {
            var definition = KubernetesYaml.Deserialize<V1CustomResourceDefinition>(await File.ReadAllTextAsync(file, cancellation));
            if (await CreateOrReplaceAsync(client, definition, cancellation)) created.Add(definition.Metadata.Name);
            await WaitUntilEstablishedAsync(client, definition.Metadata.Name, cancellation);
        }

        return created;
    }

    /// <summary>
    /// A plain create or replace: a server from before 1.25 drops the CEL rules it does not know, where server-side apply would refuse the whole file for them.
    /// </summary>
    private static async Task<bool> CreateOrReplaceAsync(IKubernetes client, V1CustomResourceDefinition definition, CancellationToken cancellation)
    {
        try
        {
            await client.ApiextensionsV1.CreateCustomResourceDefinitionAsync(definition, cancellationToken: cancellation);
            return true;
        }
        catch (HttpOperationException exists) when (exists.Response.StatusCode == HttpStatusCode.Conflict)
        {
            var current = await client.ApiextensionsV1.ReadCustomResourceDefinitionAsync(definition.Metadata.Name, cancellationToken: cancellation);
            definition.Metadata.ResourceVersion = current.Metadata.ResourceVersion;
            await client.ApiextensionsV1.ReplaceCustomResourceDefinitionAsync(definition, definition.Metadata.Name, cancellationToken: cancellation);
            return false;
        }
    }

    private static async Task WaitUntilEstablishedAsync(IKubernetes client, string name, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(EstablishLimit);
        while (true)
        {
            var definition = await client.ApiextensionsV1.ReadCustomResourceDefinitionAsync(name, cancellationToken: limit.Token);
            if (definition.Status?.Conditions?.Any(condition => condition is { Type: "Established", Status: "True" }) == true) return;
            await Task.Delay(TimeSpan.FromMilliseconds(50), TimeProvider.System, limit.Token);
        }
    }
}
