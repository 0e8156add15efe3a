using System.Diagnostics;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// Top-ups whose money is credited by events alone, because every card's bank asks its holder: 64 customers against the Web API as a
/// process of its own, with a Stripe of this machine behind it. A tenth of the events is lost, comes three times or comes late; what is
/// lost is found by the comparison.
/// </summary>
internal static class TopUpBenchmark
{
    private const int Clients = 64;
    private const int OneInTen = 10;
    private const int CompareSeconds = 5;
    private const string SigningKey = "benchmarks-sign-with-this-key-and-no-other";
    private const string TopUp = """{"amount":{"currencyCode":"USD","units":"5"},"stripePaymentMethodId":"CARD"}""";
    private static readonly TimeSpan Span = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan Glance = TimeSpan.FromMilliseconds(100);

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var postgres = await workplace.PostgresAsync(cancellation);
        await using var database = await Workplace.OpenBillingAsync(postgres, "topup", cancellation);
        await using var stripe = await FakeStripe.StartAsync(TimeProvider.System);
        var url = new Uri($"http://127.0.0.1:{FreePorts.Take(1)[0]}");
        var log = Path.Combine(Path.GetTempPath(), $"tensormesh-web-{Guid.NewGuid():n}.log");
        using var web = await ProcessLauncher.StartAsync(log, "dotnet",
        [
            Repository.Executable("Tensormesh.Web", "tensormesh-web"), $"--ConnectionStrings:Billing={database.ConnectionString}",
            $"--Tensormesh:DevelopmentSigningKey={SigningKey}", $"--Tensormesh:Urls={url.GetLeftPart(UriPartial.Authority)}",
            "--Tensormesh:Payments:Provider=Stripe", $"--Tensormesh:Payments:StripeSecretKey={FakeStripe.SecretKey}",
            $"--Tensormesh:Payments:StripeApiBase={stripe.Address}", $"--Tensormesh:Payments:StripeWebhookSecret={FakeStripe.WebhookSecret}",
            $"--Tensormesh:Payments:ReconcileSeconds={CompareSeconds}",
        ]);
        try
        {
            using var http = new HttpClient { BaseAddress = url, Timeout = TimeSpan.FromSeconds(30) };
            await UsageLoad.ReadyAsync(http, web, log, cancellation);
            await MeasureAsync(workplace, database, stripe, http, cancellation);
        }
        finally
        {
            web.Kill();
            await web.WaitForExitAsync(CancellationToken.None);
            File.Delete(log);
        }
    }

    private static async Task MeasureAsync(
        Workplace workplace, NpgsqlDataSource database, FakeStripe stripe, HttpClient http, CancellationToken cancellation)
    {
        var cards = await Task.WhenAll(Enumerable.Range(0, Clients).Select(i => OpenAsync(http, database, stripe, i, cancellation)));
        stripe.Webhooks.Address = new Uri(http.BaseAddress!, "/v1/billing/stripe/webhooks");
        stripe.Webhooks.Plan = number => number % OneInTen != 0
            ? FakeStripeDelivery.Normal
            : (number / OneInTen % 3) switch
            {
                0 => FakeStripeDelivery.Lost,
                1 => FakeStripeDelivery.Repeated,
                _ => FakeStripeDelivery.Reordered,
            };

        var watch = Stopwatch.StartNew();
        var asked = await Task.WhenAll(cards.Select((card, i) => TopUpAsync(http, stripe, i, card, watch, cancellation)));
        await stripe.Webhooks.DrainAsync();
        var seconds = watch.Elapsed.TotalSeconds;
        var told = await CreditedAsync(database, cancellation);
        var paid = stripe.Books.SucceededPayments;
        // What was lost on the way is found within two comparisons.
        while (await CreditedAsync(database, cancellation) is var now && now.Payments < paid && watch.Elapsed < Limit)
        {
            await Task.Delay(Glance, cancellation);
        }

        var credited = await CreditedAsync(database, cancellation);
        var off = Math.Abs(paid - credited.Payments) + Math.Abs(stripe.Books.NetCents - credited.Cents) / 500 + Math.Abs(asked.Sum() - paid);
        Workplace.Say(
            $"{paid} paid, {told.Payments} credited by events in {seconds:0.0} s, {credited.Payments} after the comparison at {watch.Elapsed.TotalSeconds:0.0} s; load {Workplace.LoadAverage()}");
        workplace.Report(
            "lost_or_doubled", off, "payments", "0",
            $"payments at Stripe without their credit, or credited twice, of {paid} by {Clients} clients, a tenth of whose events was lost, doubled or reordered");
        workplace.Report("per_s", told.Payments / seconds, "1/s", null, "top-ups asked for, confirmed by the holder and credited by their event");
    }

    /// <returns>How many were asked for and confirmed.</returns>
    private static async Task<int> TopUpAsync(
        HttpClient http, FakeStripe stripe, int client, string card, Stopwatch watch, CancellationToken cancellation)
    {
        var confirmed = 0;
        while (watch.Elapsed < Span)
        {
            var answer = await SendAsync(http, client, "/v1/billing/stripe/payment-intents", TopUp.Replace("CARD", card, StringComparison.Ordinal), cancellation);
            stripe.Books.Authenticate((string)answer["stripePaymentIntentId"]!, agrees: true);
            confirmed++;
        }

        return confirmed;
    }

    /// <returns>The card.</returns>
    private static async Task<string> OpenAsync(
        HttpClient http, NpgsqlDataSource database, FakeStripe stripe, int client, CancellationToken cancellation)
    {
        var account = new AccountId(Name(client));
        await new Accounts(database).DeclareAsync(account, new AccountPolicy(account.Value, null, null, "UTC"), cancellation);
        var setup = await SendAsync(http, client, "/v1/billing/stripe/setup-intents", "{}", cancellation);
        var card = stripe.Books.ConfirmSetup((string)setup["stripeSetupIntentId"]!, "pm_card_authenticationRequired");
        await SendAsync(http, client, "/v1/billing/stripe/customers/payment-methods", $$"""{"stripePaymentMethodId":"{{card}}"}""", cancellation);
        return card;
    }

    private static string Name(int client) => FormattableString.Invariant($"account-{client}");

    private static async Task<JsonNode> SendAsync(HttpClient http, int client, string path, string json, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(json, Encoding.UTF8, "application/json") };
        request.Headers.Authorization = new AuthenticationHeaderValue(
            "Bearer", DevelopmentTokens.Issue(SigningKey, Name(client), "USER", TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(1)));
        using var response = await http.SendAsync(request, cancellation);
        var text = await response.Content.ReadAsStringAsync(cancellation);
        return response.IsSuccessStatusCode ? JsonNode.Parse(text)! : throw new InvalidOperationException($"{path}: {(int)response.StatusCode} {text}");
    }

    private static async Task<(int Payments, long Cents)> CreditedAsync(NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var count = database.CreateCommand(
            """
            select count(*)::int, coalesce(sum(e.amount_nanos), 0)::bigint / 10000000 from ledger_transaction t
            join ledger_entry e on e.transaction_position = t.position and e.amount_nanos > 0 where t.type = 'TopUp'
            """);
        await using var reader = await count.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        return (reader.GetInt32(0), reader.GetInt64(1));
    }
}
