using System.Net;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Time.Testing;
using Prometheus;
using Tensormesh.Agent;
using Tensormesh.Agent.Telemetry;

namespace Agent.Tests;

public sealed class TelemetryEndpointTests : IAsyncLifetime
{
    private readonly FakeTimeProvider time = new();
    private readonly AgentOptions options = new() { NodeName = "gpu-a", MetricsUrl = $"http://127.0.0.1:{FreePort()}" };
    private readonly Readiness readiness;
    private readonly TelemetryEndpoint endpoint;
    private readonly HttpClient http;

    public TelemetryEndpointTests()
    {
        var registry = Metrics.NewCustomRegistry();
        new AgentMetrics(registry, time).Rounds.WithLabels("done").Inc(3);
        readiness = new Readiness(options, time);
        endpoint = new TelemetryEndpoint(options, registry, readiness, time);
        http = new HttpClient { BaseAddress = new Uri(options.MetricsUrl) };
    }

    private static CancellationToken Ended => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => await endpoint.StartAsync(Ended);

    [Fact]
    public async Task Metrics_are_what_a_scraper_reads()
    {
        using var answer = await http.GetAsync(new Uri("/metrics?name=all", UriKind.Relative), Ended);
        Assert.Equal("text/plain; version=0.0.4; charset=utf-8", answer.Content.Headers.ContentType!.ToString());
        Assert.Contains("\ntensormesh_agent_rounds_total{outcome=\"done\"} 3\n", await answer.Content.ReadAsStringAsync(Ended), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Ready_is_who_told_the_cluster_and_who_is_not_says_why()
    {
        Assert.Equal((HttpStatusCode.OK, "ok\n"), await GetAsync("/healthz"));
        Assert.Equal((HttpStatusCode.ServiceUnavailable, "the GpuNode gpu-a has not been written yet\n"), await GetAsync("/readyz"));
        readiness.Succeeded();
        Assert.Equal((HttpStatusCode.OK, "ok\n"), await GetAsync("/readyz"));
        Assert.Equal(HttpStatusCode.NotFound, (await GetAsync("/")).Status);
    }

    [Theory]
    [InlineData("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n")]
    [InlineData("GET /metrics\r\n\r\n")]
    [InlineData("\r\n\r\n")]
    public async Task What_is_no_get_is_a_bad_request(string request)
    {
        using var stream = await ConnectAsync();
        await stream.WriteAsync(Encoding.ASCII.GetBytes(request), Ended);
        using var answer = new StreamReader(stream);
        Assert.Equal("HTTP/1.1 400 BadRequest", await answer.ReadLineAsync(Ended));
    }

    [Fact]
    public async Task Whoever_asks_nothing_keeps_nobody_waiting_for_long()
    {
        var silent = new List<NetworkStream>();
        for (var i = 0; i < 16; i++) silent.Add(await ConnectAsync());
        var asked = GetAsync("/healthz");
        Assert.NotSame(asked, await Task.WhenAny(asked, Task.Delay(TimeSpan.FromMilliseconds(300), Ended)));

        time.Advance(TimeSpan.FromSeconds(6));
        Assert.Equal(HttpStatusCode.OK, (await asked).Status);
        foreach (var stream in silent) await stream.DisposeAsync();
    }

    private async Task<(HttpStatusCode Status, string Body)> GetAsync(string path)
    {
        using var answer = await http.GetAsync(new Uri(path, UriKind.Relative), Ended);
        return (answer.StatusCode, await answer.Content.ReadAsStringAsync(Ended));
    }

    private async Task<NetworkStream> ConnectAsync()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(IPAddress.Loopback, http.BaseAddress!.Port, Ended);
        return new NetworkStream(socket, ownsSocket: true);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    public async ValueTask DisposeAsync()
    {
        await endpoint.StopAsync(CancellationToken.None);
        endpoint.Dispose();
        http.Dispose();
    }
}
