using k8s;
using k8s.Models;

namespace Tensormesh.TestKit;

/// <summary>Installs the committed CRDs.</summary>
public static class CustomResources
{
    private static readonly TimeSpan EstablishLimit = TimeSpan.FromSeconds(30);

    /// <summary>Applies every file of the folder and waits until the server serves the kinds.</summary>
    public static async Task ApplyAsync(IKubernetes client, string folder, CancellationToken cancellation)
    {
        foreach (var file in Directory.EnumerateFiles(folder, "*.yaml").Order(StringComparer.Ordinal))
        {
            var definition = KubernetesYaml.Deserialize<V1CustomResourceDefinition>(await File.ReadAllTextAsync(file, cancellation));
            await client.ApiextensionsV1.PatchCustomResourceDefinitionAsync(
                new V1Patch(KubernetesJson.Serialize(definition), V1Patch.PatchType.ApplyPatch), definition.Metadata.Name,
                fieldManager: "tensormesh-install", force: true, cancellationToken: cancellation);
            await WaitUntilEstablishedAsync(client, definition.Metadata.Name, cancellation);
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
