using System.Net;
using System.Net.Sockets;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>What callers see while Postgres is away, broken or not migrated. It stops its own Postgres, so it has one.</summary>
public sealed class OutageTests(WebServer server) : IClassFixture<WebServer>
{
    private static readonly TimeSpan RecoveryDeadline = TimeSpan.FromSeconds(20);
    private readonly WebServer server = server;

    [Fact]
    public async Task While_Postgres_is_away_money_routes_say_503_and_afterwards_they_answer_again_by_themselves()
    {
        var account = await server.OpenAccountAsync();
        var (customer, admin) = (server.As(account), server.As("ops", "ADMIN"));
        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await admin.AddBalanceAsync(account, "5", "before-the-outage")).Ok();

        await server.Postgres.CrashAsync();
        try
        {
            Answer[] answers =
            [
                await customer.GetAsync("/v1/billing/balance"),
                await customer.GetAsync("/v1/billing/transactions"),
                await customer.GetAsync("/v1/billing/gpu-pricing"),
                await customer.GetAsync("/v1/billing/stripe/customers/payment-methods"),
                await customer.AttachAsync("pm_card_mastercard"),
                await customer.TopUpAsync("5"),
                await admin.AddBalanceAsync(account, "5", "before-the-outage"),
            ];
            Assert.All(answers, answer =>
            {
                answer.Problem(HttpStatusCode.ServiceUnavailable, "ledger-unavailable");
                Assert.Equal(TimeSpan.FromSeconds(5), answer.Headers.RetryAfter!.Delta);
                Assert.DoesNotContain("127.0.0.1", answer.Text, StringComparison.Ordinal);
            });
            Assert.Equal(HttpStatusCode.ServiceUnavailable, (await customer.GetAsync("/readyz")).Status);
            (await customer.GetAsync("/healthz")).Ok();
            (await customer.GetAsync("/auth/profile")).Ok();
        }
        finally
        {
            await server.Postgres.RestartAsync();
        }

        await UntilAsync(async () => (await customer.GetAsync("/v1/billing/balance")).Status == HttpStatusCode.OK);
        (await customer.GetAsync("/readyz")).Ok();
        (await admin.AddBalanceAsync(account, "5", "before-the-outage")).IsExactly("""{"balance":{"currencyCode":"USD","units":"5","nanos":0}}""");
    }

    [Fact]
    public async Task A_database_that_is_not_migrated_is_not_ready()
    {
        var empty = await server.Postgres.CreateDatabaseAsync("empty", CancellationToken.None);
        var host = await server.StartAnotherAsync($"--ConnectionStrings:Billing={empty}");
        var stranger = server.WithToken(null, host);
        Assert.Contains("migrat", (await stranger.GetAsync("/readyz")).Problem(HttpStatusCode.ServiceUnavailable, "not-ready"),
            StringComparison.Ordinal);
        (await stranger.GetAsync("/healthz")).Ok();
    }

    [Fact]
    public async Task A_failure_of_ours_is_told_without_its_insides()
    {
        var broken = await server.Postgres.CreateDatabaseAsync("broken", CancellationToken.None);
        var host = await server.StartAnotherAsync($"--ConnectionStrings:Billing={broken}");
        var answer = await server.As("acme", host: host).GetAsync("/v1/billing/balance");
        answer.Problem(HttpStatusCode.InternalServerError, "internal");
        Assert.DoesNotContain("relation", answer.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("42P01", answer.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Metrics_have_a_listener_of_their_own_and_labels_from_closed_sets_only()
    {
        var port = FreePort();
        var host = await server.StartAnotherAsync($"--Tensormesh:MetricsUrl=http://127.0.0.1:{port}");
        var customer = server.As("acme", host: host);
        (await customer.GetAsync("/auth/profile")).Ok();
        (await customer.GetAsync("/v1/secret-path")).Problem(HttpStatusCode.NotFound, "no-such-route");
        (await customer.GetAsync("/metrics")).Problem(HttpStatusCode.NotFound, "no-such-route");
        await customer.SendAsync(new HttpMethod("BREW"), "/auth/profile", null);

        using var http = new HttpClient();
        var text = await http.GetStringAsync(new Uri($"http://127.0.0.1:{port}/metrics"), TestContext.Current.CancellationToken);
        Assert.Contains("""tensormesh_web_request_seconds_count{route="/auth/profile",method="GET",status="200"} 1""", text, StringComparison.Ordinal);
        Assert.Contains("tensormesh_web_ledger_unavailable_total 0", text, StringComparison.Ordinal);
        Assert.DoesNotContain("BREW", text, StringComparison.Ordinal);
        Assert.DoesNotContain("secret-path", text, StringComparison.Ordinal);
        Assert.DoesNotContain("acme", text, StringComparison.Ordinal);
    }

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!await condition())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(began) < RecoveryDeadline, "not back in time");
            await Task.Delay(TimeSpan.FromMilliseconds(100), TestContext.Current.CancellationToken);
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
