using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// The API server in front of the model, as far as the real Applier asks anything of one: its client sends requests as ever, and they end here. The
/// process may die before a write and after it.
/// </summary>
internal sealed class ClusterApi(World world, Mortality mortality) : DelegatingHandler
{
    public static IKubernetes Open(World world, Mortality mortality)
        => new Kubernetes(new KubernetesClientConfiguration { Host = "http://cluster.model" }, new ClusterApi(world, mortality));

    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        var path = request.RequestUri!.AbsolutePath.Split('/', StringSplitOptions.RemoveEmptyEntries);
        var body = request.Content is { } content ? await content.ReadAsStringAsync(cancellationToken) : "";
        var isLease = path.Contains("leases");
        var writes = request.Method != HttpMethod.Get && !isLease;
        if (writes) mortality.Step();
        var answer = isLease ? Lease(request.Method, body) : Answer(request.Method, path, Uri.UnescapeDataString(request.RequestUri.Query), body);
        if (writes) mortality.Step();
        answer.RequestMessage = request;
        return answer;
    }

    private HttpResponseMessage Answer(HttpMethod method, string[] path, string query, string body)
    {
        var at = Array.IndexOf(path, "namespaces");
        var (ns, kind, name) = (path[at + 1], path[at + 2], path.Length > at + 3 ? path[at + 3] : null);
        var deployment = world.Deployments.First(each => each.Namespace == ns);
        return (kind, name) switch
        {
            ("gpudeployments", not null) => PatchFinalizers(deployment, JsonNode.Parse(body)!["metadata"]!),
            ("deployments", not null) => Child(method, deployment, body),
            ("pods", null) => Json(new V1PodList { ApiVersion = "v1", Kind = "PodList", Metadata = new V1ListMeta(), Items = [.. deployment.There.Select(pod => pod.Render())] }),
            ("pods", not null) => Pod(method, deployment, name, body),
            ("events", null) => Json(Killings(deployment, query)),
            _ => throw new InvalidOperationException($"the model has no {method} {string.Join('/', path)}"),
        };
    }

    private HttpResponseMessage PatchFinalizers(ModelDeployment deployment, JsonNode metadata)
    {
        if (deployment.Gone) return Status(HttpStatusCode.NotFound);
        if ((string?)metadata["uid"] != deployment.Uid.ToString()
            || (string?)metadata["resourceVersion"] != deployment.Version.ToString(CultureInfo.InvariantCulture)) return Status(HttpStatusCode.Conflict);
        deployment.HasFinalizer = metadata["finalizers"]!.AsArray().Any(each => (string?)each == WellKnown.MeteringFinalizer);
        deployment.Version++;
        if (!deployment.HasFinalizer && deployment.DeletionAsked is not null) world.LetGo(deployment);
        return Json(deployment.Render());
    }

    private HttpResponseMessage Child(HttpMethod method, ModelDeployment deployment, string body)
    {
        if (method == HttpMethod.Delete && deployment.Child is not null)
        {
            world.DeleteChild(deployment);
            return Status(HttpStatusCode.OK);
        }

        if (method == HttpMethod.Patch || method == HttpMethod.Put)
        {
            world.ApplyChild(deployment, KubernetesJson.Deserialize<V1Deployment>(body));
            if (deployment.Child is null) return Json(Collected(body));
        }

        return deployment.Child is { } child ? Json(child) : Status(HttpStatusCode.NotFound);
    }

    /// <summary>Of an owner that is gone: made, and taken again by the garbage collector.</summary>
    private V1Deployment Collected(string body)
    {
        var child = KubernetesJson.Deserialize<V1Deployment>(body);
        (child.Metadata.Uid, child.Metadata.Generation) = (world.NewUid().ToString(), 1);
        return child;
    }

    private HttpResponseMessage Pod(HttpMethod method, ModelDeployment deployment, string name, string body)
    {
        if (deployment.There.Find(each => each.Name == name) is not { } pod) return Status(HttpStatusCode.NotFound);
        if (method == HttpMethod.Delete)
        {
            world.Delete(deployment, pod);
            world.Control();
        }

        if (method == HttpMethod.Patch && JsonNode.Parse(body)!["metadata"]!["finalizers"]!.AsArray().Count == 0) world.ReleasePod(deployment, pod);
        return Json(pod.Render());
    }

    /// <param name="query">With a field selector that names the pod.</param>
    private static Corev1EventList Killings(ModelDeployment deployment, string query) => new()
    {
        ApiVersion = "v1",
        Kind = "EventList",
        Metadata = new V1ListMeta(),
        Items =
        [
            .. deployment.Pods.Where(pod => pod.KillingTold && query.Contains(pod.Uid.ToString(), StringComparison.Ordinal))
                .Select(pod => new Corev1Event { Metadata = new V1ObjectMeta(), InvolvedObject = new V1ObjectReference(), LastTimestamp = pod.VanishedAt!.Value.UtcDateTime }),
        ],
    };

    private static HttpResponseMessage Lease(HttpMethod method, string body)
        => method == HttpMethod.Get ? Status(HttpStatusCode.NotFound) : Text(HttpStatusCode.OK, body);

    private static HttpResponseMessage Status(HttpStatusCode code) => Text(code, $$"""{"apiVersion": "v1", "kind": "Status", "code": {{(int)code}}}""");

    private static HttpResponseMessage Json<T>(T value) => Text(HttpStatusCode.OK, KubernetesJson.Serialize(value));

    private static HttpResponseMessage Text(HttpStatusCode code, string json)
        => new(code) { Content = new StringContent(json, Encoding.UTF8, "application/json") };
}
