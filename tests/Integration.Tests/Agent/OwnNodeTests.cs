using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Integration.Tests.Operators;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Agents;

/// <summary>An agent that was taken over speaks for its own node and no other.</summary>
public sealed class OwnNodeTests(OperatorFixture product) : AgentTest(product)
{
    [Fact]
    public async Task An_agent_may_write_the_object_of_its_own_node_and_no_other()
    {
        var (own, other) = (await AddNodeAsync(), await AddNodeAsync());
        using var client = await ConnectAsync(own);
        using var othersClient = await ConnectAsync(other);
        await ApplyAsync(othersClient, other);
        await ApplyStatusAsync(othersClient, other, gpus: 8);

        await ApplyAsync(client, own);
        await ApplyStatusAsync(client, own, gpus: 4);
        await RefusesAsync(() => ApplyStatusAsync(client, other, gpus: 0), $"an agent writes only the GpuNode of its own node: this one runs on {own}");
        await RefusesAsync(() => ApplyAsync(client, other), "own node");
        await RefusesAsync(() => ApplyAsync(client, "gpu-z"), "own node");

        Assert.Equal(8, (await FindAsync(other))!.Status!.Gpus);
        Assert.Null(await FindAsync("gpu-z"));
    }

    [Fact]
    public async Task A_token_that_is_bound_to_no_pod_or_to_one_that_is_gone_writes_nothing()
    {
        var node = await AddNodeAsync();
        using var anywhere = await AgentRights.ConnectAsync(Cluster, pod: null, Ended);
        await RefusesAsync(() => ApplyAsync(anywhere, node), "not bound to a pod");

        var pod = await AgentRights.CreatePodAsync(Cluster, node, Ended);
        using var late = await AgentRights.ConnectAsync(Cluster, pod, Ended);
        await Client.CoreV1.DeleteNamespacedPodAsync(pod.Name(), pod.Namespace(), gracePeriodSeconds: 0, cancellationToken: Ended);
        var refused = await Eventually.SeeAsync(() => StatusOfAsync(() => ApplyAsync(late, node)), code => code is not null);
        Assert.True(refused is HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden, $"{refused}");
        Assert.Null(await FindAsync(node));
    }

    [Fact]
    public async Task An_agent_may_neither_delete_a_GpuNode_nor_list_them_nor_change_a_node_nor_read_a_secret()
    {
        var node = await AddNodeAsync();
        using var client = await ConnectAsync(node);
        await ApplyAsync(client, node);

        Assert.Equal(HttpStatusCode.Forbidden, await StatusOfAsync(() =>
            client.CustomObjects.DeleteClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, cancellationToken: Ended)));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusOfAsync(() =>
            client.CustomObjects.ListClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, GpuNode.PluralName, cancellationToken: Ended)));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusOfAsync(() => client.CoreV1.ListNamespacedSecretAsync("default", cancellationToken: Ended)));
        Assert.Equal(HttpStatusCode.Forbidden, await StatusOfAsync(() => client.CoreV1.ListPodForAllNamespacesAsync(cancellationToken: Ended)));
    }

    [Fact]
    public async Task An_agent_that_is_told_a_wrong_node_is_not_ready_and_says_why()
    {
        var (own, other) = (await AddNodeAsync(), await AddNodeAsync());
        using var server = await ServerAsync(own);
        var gpus = await MountAsync(other, 1);
        await using var agent = await AgentRun.StartAsync(gpus.Probe, server, Options(other));

        var problem = await Eventually.SeeAsync(() => Task.FromResult(agent.Readiness.Problem()), words => words?.Contains("own node", StringComparison.Ordinal) == true);
        Assert.StartsWith($"the GpuNode {other} has not been written yet: 403", problem, StringComparison.Ordinal);
        Assert.Null(await FindAsync(other));
    }

    private static Task<GpuNode> ApplyAsync(Kubernetes client, string node) => client.CustomObjects.PatchClusterCustomObjectAsync<GpuNode>(
        Patch(new { apiVersion = WellKnown.ApiVersion, kind = GpuNode.KubeKind, metadata = new { name = node } }),
        WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, fieldManager: "tests", cancellationToken: Ended);

    private static Task<GpuNode> ApplyStatusAsync(Kubernetes client, string node, int gpus) => client.CustomObjects.PatchClusterCustomObjectStatusAsync<GpuNode>(
        Patch(new { apiVersion = WellKnown.ApiVersion, kind = GpuNode.KubeKind, metadata = new { name = node }, status = new { gpus } }),
        WellKnown.Group, WellKnown.Version, GpuNode.PluralName, node, fieldManager: "tests", force: true, cancellationToken: Ended);

    private static V1Patch Patch(object content) => new(KubernetesJson.Serialize(content), V1Patch.PatchType.ApplyPatch);

    private static async Task RefusesAsync(Func<Task> write, string why)
    {
        var refusal = await Assert.ThrowsAsync<HttpOperationException>(write);
        Assert.Equal(HttpStatusCode.Forbidden, refusal.Response.StatusCode);
        Assert.Contains(why, refusal.Response.Content, StringComparison.Ordinal);
        Assert.Contains("own-node.tensormesh.ai", refusal.Response.Content, StringComparison.Ordinal);
    }

    private static async Task<HttpStatusCode?> StatusOfAsync(Func<Task> call)
    {
        try
        {
            await call();
            return null;
        }
        catch (HttpOperationException refused)
        {
            return refused.Response.StatusCode;
        }
    }
}
