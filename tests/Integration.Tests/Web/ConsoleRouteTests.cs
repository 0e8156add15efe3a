using System.Net;
using System.Text.Json;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.Billing;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>The routes that the console's pages have beside the public API's: runs, all accounts, and the address; and its settings.</summary>
[Collection(WebSuite.Name)]
public sealed class ConsoleRouteTests(WebServer server)
{
    private readonly WebServer server = server;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Runs_come_newest_first_in_pages_each_once_with_what_they_cost()
    {
        var account = await server.OpenAccountAsync();
        var now = TimeProvider.System.GetUtcNow();
        await server.Services.GetRequiredService<Prices>().PublishAsync($"of-{account}", new Dictionary<GpuProduct, Money> { [new(account)] = Money.Parse("3.60") }, [], now.AddDays(-30), Cancellation);
        await server.As("platform", "ADMIN").AddBalanceAsync(account, "1000");
        var (runs, meter) = (server.Services.GetRequiredService<RunIntervals>(), server.Services.GetRequiredService<Meter>());
        var deployments = new List<DeploymentId>();
        for (var i = 0; i < 7; i++)
        {
            // Two that began in one instant are told apart by their pods.
            var run = Start(account, $"work-{i}", now.AddHours(-10 + i / 2 * 2));
            deployments.Add(run.Deployment);
            await runs.OpenAsync(run, Cancellation);
            if (i < 4) await runs.CloseAsync(run.Pod, run.StartedAt.AddSeconds(1_000), Cancellation);
        }

        await meter.SuspendAsync(deployments[4], now.AddHours(-1), nameof(RefusalReason.CardExpired), new CreditPolicy(), now.AddHours(-1), Cancellation);
        var customer = server.As(account);
        var seen = new List<JsonElement>();
        var token = "";
        do
        {
            var page = (await customer.GetAsync($"/v1/billing/runs?pageSize=2&pageToken={token}")).Ok();
            Assert.InRange(page.GetProperty("runs").GetArrayLength(), 1, 2);
            seen.AddRange(page.GetProperty("runs").EnumerateArray());
            token = page.GetProperty("nextPageToken").GetString()!;
        }
        while (token.Length > 0);

        Assert.Equal(7, seen.Select(run => run.GetProperty("pod").GetString()).Distinct().Count());
        Assert.Equal(seen.Select(run => run.GetProperty("startedAt").GetDateTimeOffset()).OrderDescending(), seen.Select(run => run.GetProperty("startedAt").GetDateTimeOffset()));
        var byName = seen.ToDictionary(run => run.GetProperty("deployment").GetString()!);
        Assert.Equal((1_000m, "1", 0), (byName["work-0"].GetProperty("chargedSeconds").GetDecimal(), byName["work-0"].GetProperty("cost").GetProperty("units").GetString(), byName["work-0"].GetProperty("cost").GetProperty("nanos").GetInt32()));
        Assert.Equal("CardExpired", byName["work-4"].GetProperty("suspendedBecause").GetString());
        Assert.False(byName["work-4"].GetProperty("running").GetBoolean());
        Assert.Equal(now.AddHours(-1), byName["work-4"].GetProperty("chargeUntil").GetDateTimeOffset(), TimeSpan.FromMilliseconds(1));
        Assert.True(byName["work-6"].GetProperty("running").GetBoolean());
        Assert.False(byName["work-6"].TryGetProperty("endedAt", out _));

        foreach (var wrong in (string[])["x", "x.y", $"{token}.{Guid.NewGuid():N}", "AAAA.00000000000000000000000000000000"])
        {
            (await customer.GetAsync($"/v1/billing/runs?pageToken={wrong}")).Problem(HttpStatusCode.BadRequest, "bad-page-token", "pageToken");
        }

        var first = (await customer.GetAsync("/v1/billing/runs?pageSize=2")).Ok().GetProperty("nextPageToken").GetString();
        var other = await server.OpenAccountAsync();
        (await server.As(other).GetAsync($"/v1/billing/runs?pageToken={first}")).Problem(HttpStatusCode.BadRequest, "bad-page-token", "pageToken");
        (await server.As(other).GetAsync($"/v1/billing/runs?userId={account}")).Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");
        Assert.Empty((await server.As(other).GetAsync("/v1/billing/runs")).Ok().GetProperty("runs").EnumerateArray());
    }

    [Fact]
    public async Task Accounts_are_found_by_name_in_pages_with_their_state_by_administrators_alone()
    {
        var names = new List<string>();
        var mark = Guid.NewGuid().ToString("n")[..8];
        for (var i = 0; i < 5; i++)
        {
            var name = $"zz-{mark}-{i}";
            await server.Services.GetRequiredService<Accounts>().DeclareAsync(new(name), new AccountPolicy($"Display {mark} {i}", null, null, "UTC"), Cancellation);
            names.Add(name);
        }

        (await server.As(names[0]).AttachAsync("pm_card_visa")).Ok();
        var admin = server.As("platform", "ADMIN");
        await admin.AddBalanceAsync(names[0], "12");
        (await server.As(names[1]).AttachAsync("pm_card_visa")).Ok();
        var seen = new List<JsonElement>();
        var token = "";
        do
        {
            var page = (await admin.GetAsync($"/v1/admin/billing/accounts?search=display+{mark.ToUpperInvariant()}&pageSize=2&pageToken={token}")).Ok();
            seen.AddRange(page.GetProperty("accounts").EnumerateArray());
            token = page.GetProperty("nextPageToken").GetString()!;
        }
        while (token.Length > 0);

        Assert.Equal(names, seen.Select(each => each.GetProperty("userId").GetString()));
        Assert.Equal(
            [("CARD_STATE_VALID", ""), ("CARD_STATE_VALID", "InsufficientBalance"), ("CARD_STATE_MISSING", "NoValidCard")],
            seen.Take(3).Select(each => (each.GetProperty("cardState").GetString()!, each.GetProperty("refusal").GetString()!)));
        Assert.Equal("12", seen[0].GetProperty("balance").GetProperty("units").GetString());
        Assert.Contains("has nothing available", seen[1].GetProperty("refusalMessage").GetString(), StringComparison.Ordinal);
        Assert.Empty((await admin.GetAsync("/v1/admin/billing/accounts?search=%25")).Ok().GetProperty("accounts").EnumerateArray());
        (await server.As(names[0]).GetAsync("/v1/admin/billing/accounts")).Problem(HttpStatusCode.Forbidden, "admins-only");
        (await admin.GetAsync($"/v1/admin/billing/accounts?search={new string('a', 254)}")).Problem(HttpStatusCode.BadRequest, "invalid-field", "search");
        foreach (var wrong in (string[])["!", "AAAA", "LS0t"]) (await admin.GetAsync($"/v1/admin/billing/accounts?pageToken={wrong}")).Problem(HttpStatusCode.BadRequest, "bad-page-token", "pageToken");
    }

    [Fact]
    public async Task The_address_is_saved_whole_or_refused_with_what_is_wrong()
    {
        var account = await server.OpenAccountAsync();
        var customer = server.As(account);
        const string nothing = """{"address":{"name":"","line1":"","line2":"","city":"","region":"","postalCode":"","country":"","taxId":""}}""";
        (await customer.GetAsync("/v1/billing/address")).IsExactly(nothing);
        foreach (var (body, field) in new[]
        {
            ("{}", "address"), ("""{"address":{}}""", "address.name"), (Body("Acme", "Street 1", "Berlin", "Deutschland"), "address.country"), (Body("Acme", "Street 1", "Berlin", "de"), "address.country"),
            (Body("Acme", " ", "Berlin", "DE"), "address.line1"), (Body("Acme", "a\\nb", "Berlin", "DE"), "address.line1"), (Body(new string('a', 201), "Street 1", "Berlin", "DE"), "address.name"),
        })
        {
            (await PutAsync(customer, body)).Problem(HttpStatusCode.BadRequest, "invalid-field", field);
        }

        (await customer.GetAsync("/v1/billing/address")).IsExactly(nothing);
        (await PutAsync(customer, Body("Acme", "Street 1", "Berlin", "DE"))).Ok();
        (await PutAsync(customer, Body("Acme <&> Söhne", "Street 2", "Köln", "DE"))).Ok();
        Assert.Equal("Köln", (await customer.GetAsync("/v1/billing/address")).Ok().GetProperty("address").GetProperty("city").GetString());
        var statements = (await customer.GetAsync("/v1/billing/statements")).Ok().GetProperty("statements");
        var printed = await customer.GetAsync($"/v1/billing/statements/{statements[0].GetProperty("month").GetString()}:print");
        Assert.Contains("<address>Acme &lt;&amp;&gt; S&#xF6;hne<br>Street 2<br>K&#xF6;ln<br>DE</address>", printed.Text, StringComparison.Ordinal);
        (await server.As(account).SendAsync(HttpMethod.Put, "/v1/billing/address", Body("X", "Y", "Z", "DE").Replace("{\"address\"", "{\"userId\":\"other\",\"address\"", StringComparison.Ordinal)))
            .Problem(HttpStatusCode.Forbidden, "not-your-account", "userId");

        static string Body(string name, string line1, string city, string country) => $$$"""{"address":{"name":"{{{name}}}","line1":"{{{line1}}}","city":"{{{city}}}","country":"{{{country}}}"}}""";
        static Task<Answer> PutAsync(WebClient client, string body) => client.SendAsync(HttpMethod.Put, "/v1/billing/address", body);
    }

    /// <summary>One row for each combination that a configuration can have.</summary>
    [Theory]
    [InlineData(false, null, false, null)]
    [InlineData(false, null, true, "development")]
    [InlineData(true, null, false, null)]
    [InlineData(true, "console", false, "provider")]
    [InlineData(true, null, true, "! Tensormesh__Console__DevelopmentSignIn lets anyone in as anyone")]
    [InlineData(true, "console", true, "! both Tensormesh__Console__ClientId and Tensormesh__Console__DevelopmentSignIn")]
    [InlineData(false, "console", false, "! Tensormesh__Console__ClientId is set and no identity provider is")]
    public void The_console_is_there_with_one_way_to_sign_in_or_not_at_all(bool hasProvider, string? client, bool development, string? outcome)
    {
        var settings = new ConfigurationBuilder().AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["ConnectionStrings:Billing"] = "Host=none",
            [hasProvider ? "Tensormesh:Authority" : "Tensormesh:DevelopmentSigningKey"] = hasProvider ? "https://id.example.com" : WebServer.SigningKey,
            ["Tensormesh:Payments:Provider"] = "Sandbox",
            ["Tensormesh:Console:ClientId"] = client,
            ["Tensormesh:Console:ClientSecret"] = client is null ? null : "a secret of the console",
            ["Tensormesh:Console:DevelopmentSignIn"] = development ? "true" : null,
        }).Build();
        if (outcome is ['!', ' ', .. var said])
        {
            Assert.StartsWith(said, Assert.Throws<SettingsException>(() => WebSettings.Read(settings)).Message, StringComparison.Ordinal);
            return;
        }

        var console = WebSettings.Read(settings).Console;
        Assert.Equal(outcome, console switch { null => null, ConsoleSettings.Development => "development", _ => "provider" });
        Assert.DoesNotContain("a secret", $"{console}", StringComparison.Ordinal);
    }

    [Fact]
    public void A_sign_in_ends_at_its_instant()
    {
        var until = new DateTimeOffset(2026, 3, 1, 18, 0, 0, TimeSpan.Zero);
        var person = new System.Security.Claims.ClaimsPrincipal(new System.Security.Claims.ClaimsIdentity([SignedInUntil.Claim(until)], "cookie"));
        Assert.False(SignedInUntil.IsOver(person, until.AddSeconds(-1)));
        Assert.True(SignedInUntil.IsOver(person, until));
        Assert.True(SignedInUntil.IsOver(new(), until.AddYears(-1)));
    }

    private static RunStart Start(string account, string name, DateTimeOffset at) => new()
    {
        Pod = new(Guid.NewGuid()),
        PodName = $"{name}-abc",
        Deployment = new(Guid.NewGuid()),
        DeploymentName = name,
        Namespace = "research",
        Account = new(account),
        Node = "gpu-a",
        Product = new(account),
        Gpus = 1,
        StartedAt = at,
    };
}
