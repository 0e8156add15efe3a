using System.Diagnostics;
using System.Text;
using k8s;
using k8s.Models;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>A dev cluster whose node has the product's images, and nothing installed.</summary>
public sealed class BareCluster : IAsyncLifetime
{
    public DevCluster Cluster { get; private set; } = null!;
    public string EnvironmentFile { get; private set; } = "";

    public async ValueTask InitializeAsync()
    {
        Cluster = await DevCluster.StartAsync(new DevClusterOptions(), Console.WriteLine, CancellationToken.None);
        EnvironmentFile = await ProductPods.PrepareClusterAsync(Cluster, Console.WriteLine, CancellationToken.None);
    }

    public ValueTask DisposeAsync() => Cluster?.DisposeAsync() ?? ValueTask.CompletedTask;
}

/// <summary>The product as a platform team installs it: pods of its own images, the committed rights, kubectl alone.</summary>
[Collection("one product at a time")]
public sealed class InstallTests(BareCluster bare) : IClassFixture<BareCluster>
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(12);

    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    private IKubernetes Client => bare.Cluster.Client;

    [Fact]
    public async Task Installed_by_kubectl_apply_k_it_does_the_main_job_with_its_own_rights_and_goes_without_a_trace()
    {
        await WalkAsync("install", "reach", "story");

        foreach (var pod in await PodsAsync("tensormesh-system"))
        {
            Assert.True(pod.Spec.SecurityContext.RunAsNonRoot, pod.Name());
            // Where the product's own pods are concerned, none was ever started anew.
            Assert.All(pod.Status.ContainerStatuses, container => Assert.True(container.RestartCount == 0, $"{pod.Name()} was restarted"));
        }

        // The Web API has no rights, and no token that could be stolen from it.
        Assert.All(await PodsAsync("tensormesh-system", "app.kubernetes.io/name=tensormesh-web"), pod => Assert.DoesNotContain(
            pod.Spec.Containers.SelectMany(container => container.VolumeMounts), mount => mount.MountPath.StartsWith("/var/run/secrets/kubernetes.io", StringComparison.Ordinal)));

        await WalkAsync("remove");
        await AssertNothingIsLeftAsync();

        // Nothing was refused to any of them, from the first request to the last but those after its rights were gone.
        Assert.DoesNotContain(bare.Cluster.UsedRights, right => !right.Allowed && !IsFarewell(right));
    }

    /// <summary>An operator that let go of its own rights may still be asked to end: it gives back the lease, which went with the namespace.</summary>
    private static bool IsFarewell(UsedRight right) => right is { Account: "tensormesh-operator", Verb: "get" or "update" or "watch" or "list" };

    private async Task AssertNothingIsLeftAsync()
    {
        Assert.DoesNotContain((await Client.CoreV1.ListNamespaceAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain((await Client.ApiextensionsV1.ListCustomResourceDefinitionAsync(cancellationToken: Ends)).Items, each => each.Spec.Group == "tensormesh.ai");
        Assert.DoesNotContain((await Client.RbacAuthorizationV1.ListClusterRoleAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain((await Client.RbacAuthorizationV1.ListClusterRoleBindingAsync(cancellationToken: Ends)).Items, each => each.Name().StartsWith("tensormesh-", StringComparison.Ordinal));
        Assert.DoesNotContain(
            (await Client.AdmissionregistrationV1.ListValidatingWebhookConfigurationAsync(cancellationToken: Ends)).Items, each => each.Name() == "tensormesh-operator");
    }

    private async Task<IList<V1Pod>> PodsAsync(string @namespace, string? selector = null)
    {
        var pods = (await Client.CoreV1.ListNamespacedPodAsync(@namespace, labelSelector: selector, cancellationToken: Ends)).Items;
        Assert.NotEmpty(pods);
        return pods;
    }

    /// <summary>Fails with all that was said when a step fails.</summary>
    private async Task WalkAsync(params string[] steps)
    {
        var told = new StringBuilder();
        var start = new ProcessStartInfo("bash") { WorkingDirectory = Repository.Root, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var argument in (string[])[Repository.Folder("tests", "walk-through.sh"), "dev", bare.EnvironmentFile, .. steps]) start.ArgumentList.Add(argument);
        using var walk = Process.Start(start) ?? throw new InvalidOperationException("bash could not be started");
        void Hear(object _, DataReceivedEventArgs line)
        {
            if (line.Data is not { } text) return;
            Console.WriteLine(text);
            lock (told) told.AppendLine(text);
        }

        walk.OutputDataReceived += Hear;
        walk.ErrorDataReceived += Hear;
        walk.BeginOutputReadLine();
        walk.BeginErrorReadLine();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        limit.CancelAfter(Limit);
        try
        {
            await walk.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            walk.Kill(entireProcessTree: true);
        }

        lock (told) Assert.True(walk is { HasExited: true, ExitCode: 0 }, told.ToString());
    }
}
