using System.Net;
using System.Text;
using System.Text.Json;
using Tensormesh.Agent.Cluster;
using Tensormesh.Resources;
using static Agent.Tests.Seen;

namespace Agent.Tests;

/// <summary>What goes over the wire is what the rest of the product reads and writes with the Kubernetes client's own serializer.</summary>
public sealed class ApiServerTests
{
    [Fact]
    public void A_report_reads_the_same_for_the_operator()
    {
        var told = After(Round(0), Round(10, With(1, Ecc)), Round(20), Round(30, With(2, Lost), allocations: Held(("trainer-0", "uid-0", [Gpu(0)]))));
        var ours = JsonSerializer.Serialize(GpuNodeObject.Of(new ObjectMeta { Name = "gpu-a" }, told), Shapes.Default.GpuNodeObject);
        var read = k8s.KubernetesJson.Deserialize<GpuNode>(ours);
        Assert.Equal(("gpu-a", GpuNode.KubeKind, WellKnown.ApiVersion), (read.Metadata.Name, read.Kind, read.ApiVersion));
        Assert.Equal(k8s.KubernetesJson.Serialize(told), k8s.KubernetesJson.Serialize(read.Status));

        var theirs = k8s.KubernetesJson.Serialize(new GpuNode { Metadata = new k8s.Models.V1ObjectMeta { Name = "gpu-a" }, Status = told });
        Assert.Equal(ours, JsonSerializer.Serialize(JsonSerializer.Deserialize(theirs, Shapes.Default.GpuNodeObject), Shapes.Default.GpuNodeObject));
    }

    [Fact]
    public async Task What_is_applied_says_by_whom_and_a_refusal_says_why()
    {
        var wire = new Answering(HttpStatusCode.Conflict, "taken");
        using var server = new ApiServer(new HttpClient(wire) { BaseAddress = new Uri("https://cluster.example/prefix/") });
        var refusal = await Assert.ThrowsAsync<ApiServerRefusal>(() => server.ApplyAsync(
            "api/v1/nodes/gpu-a", new NodeObject("v1", "Node", new ObjectMeta { Name = "gpu-a" }), Shapes.Default.NodeObject, force: false,
            TestContext.Current.CancellationToken));

        Assert.Equal((HttpStatusCode.Conflict, "409 taken"), (refusal.Status, refusal.Message));
        Assert.Equal(
            ["PATCH https://cluster.example/prefix/api/v1/nodes/gpu-a?fieldManager=tensormesh-agent&force=false",
                "application/apply-patch+yaml", """{"apiVersion":"v1","kind":"Node","metadata":{"name":"gpu-a"}}"""],
            wire.Asked);
    }

    [Theory]
    [InlineData("token: secret", null)]
    [InlineData("tokenFile: token", null)]
    [InlineData("exec: {command: aws}", "'exec' in it is not understood: use a token or a client certificate")]
    [InlineData("client-certificate-data: '*'", "The input is not a valid Base-64 string")]
    public async Task A_kubeconfig_is_used_or_refused_by_name(string user, string? problem)
    {
        var folder = Directory.CreateTempSubdirectory("tensormesh-kubeconfig-").FullName;
        try
        {
            var file = Path.Combine(folder, "config");
            await File.WriteAllTextAsync(Path.Combine(folder, "token"), "secret\n", TestContext.Current.CancellationToken);
            var text = """
                current-context: here
                contexts: [{name: here, context: {cluster: home, user: me}}]
                clusters: [{name: home, cluster: {server: "https://127.0.0.1:6443"}}]
                users:
                - name: me
                  user:
                    USER
                """;
            await File.WriteAllTextAsync(file, text.Replace("USER", user, StringComparison.Ordinal), TestContext.Current.CancellationToken);
            if (problem is null)
            {
                Assert.Equal("secret", Kubeconfig.Read(file).Token!().Trim());
                ApiServerConnection.Open(file).Dispose();
            }
            else
            {
                Assert.StartsWith(problem, Assert.Throws<InvalidDataException>(() => ApiServerConnection.Open(file)).Message, StringComparison.Ordinal);
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Where_there_is_no_cluster_that_is_said()
    {
        Assert.Contains("no pod", Assert.Throws<InvalidDataException>(() => ApiServerConnection.Open(null)).Message, StringComparison.Ordinal);
        Assert.Contains("/nowhere/config", Assert.Throws<InvalidDataException>(() => ApiServerConnection.Open("/nowhere/config")).Message, StringComparison.Ordinal);
    }

    private sealed class Answering(HttpStatusCode status, string content) : HttpMessageHandler
    {
        public List<string> Asked { get; } = [];

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            Asked.AddRange([$"{request.Method} {request.RequestUri}", request.Content!.Headers.ContentType!.ToString(),
                await request.Content.ReadAsStringAsync(cancellationToken)]);
            return new HttpResponseMessage(status) { Content = new StringContent(content, Encoding.UTF8) };
        }
    }
}
