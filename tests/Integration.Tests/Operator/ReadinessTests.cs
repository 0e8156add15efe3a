using System.Net;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>On a cluster of its own, whose API server may be stopped.</summary>
[Collection(OperatorSuite.Name)]
public sealed class ReadinessTests : IAsyncLifetime
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    private DevCluster? cluster;
    private Installation? installation;

    private static CancellationToken Ended => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, Console.WriteLine, Ended);
        installation = await Installation.StartAsync(cluster, InstallationOptions.Quick, Console.WriteLine, Ended);
    }

    public async ValueTask DisposeAsync()
    {
        if (installation is not null) await installation.DisposeAsync();
        if (cluster is not null) await cluster.DisposeAsync();
    }

    [Fact]
    public async Task An_operator_that_cannot_renew_its_lease_says_so_stops_leading_and_starts_again()
    {
        Assert.Equal((HttpStatusCode.OK, "ok"), await AskAsync());

        await cluster!.StopApiServerAsync();
        var (status, words) = await SeeAsync(answer => answer.Status == HttpStatusCode.ServiceUnavailable);
        Assert.Equal((HttpStatusCode.ServiceUnavailable, "the leader lease could not be renewed"), (status, words));

        // A process that lost its lease ends, rather than go on with half of its loops.
        await SeeAsync(answer => answer.Status is null);

        await cluster.StartApiServerAsync();
        await installation!.KillOperatorAsync();
        await installation.StartOperatorAsync(Ended);
        Assert.Equal((HttpStatusCode.OK, "ok"), await AskAsync());
    }

    /// <summary>What /readyz answers; no status when nobody listens.</summary>
    private async Task<(HttpStatusCode? Status, string Words)> AskAsync()
    {
        using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(5) };
        try
        {
            using var answer = await http.GetAsync(new Uri(installation!.MetricsUrl, "/readyz"), Ended);
            return (answer.StatusCode, (await answer.Content.ReadAsStringAsync(Ended)).Trim());
        }
        catch (HttpRequestException)
        {
            return (null, "");
        }
    }

    private async Task<(HttpStatusCode? Status, string Words)> SeeAsync(Func<(HttpStatusCode? Status, string Words), bool> condition)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Ended);
        limit.CancelAfter(Limit);
        while (true)
        {
            var answer = await AskAsync();
            if (condition(answer)) return answer;
            await Task.Delay(TimeSpan.FromMilliseconds(100), limit.Token);
        }
    }
}
