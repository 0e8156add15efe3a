using System.Globalization;
using System.Net;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Web;

[Collection(WebSuite.Name)]
public sealed class MoneyRoutesTests(WebServer server)
{
    private readonly WebServer server = server;
    private readonly WebClient admin = server.As("ops", "ADMIN");

    [Fact]
    public async Task The_balance_is_money_with_units_as_text()
    {
        var account = await server.OpenAccountAsync();
        var customer = server.As(account);
        (await customer.GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
        (await admin.PostAsync("/v1/admin/billing/balances:add",
            $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"12","nanos":500000000},"reason":"welcome"}"""))
            .IsExactly("""{"balance":{"currencyCode":"USD","units":"12","nanos":500000000}}""");
        (await customer.GetAsync($"/v1/billing/balance?userId={account}")).IsExactly("""{"balance":{"currencyCode":"USD","units":"12","nanos":500000000}}""");
        (await customer.GetAsync("/v1/billing/balance?userId=")).IsExactly("""{"balance":{"currencyCode":"USD","units":"12","nanos":500000000}}""");
    }

    [Fact]
    public async Task Money_keeps_its_last_nano()
    {
        var account = await server.OpenAccountAsync();
        (await admin.PostAsync("/v1/admin/billing/balances:add", $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"9000000000","nanos":999999999}}"""))
            .IsExactly("""{"balance":{"currencyCode":"USD","units":"9000000000","nanos":999999999}}""");
        (await admin.PostAsync("/v1/admin/billing/balances:add", $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"9000000000"}}"""))
            .Problem(HttpStatusCode.BadRequest, "invalid-field", "amount");
    }

    [Fact]
    public async Task Balances_of_many_accounts_come_in_the_order_asked()
    {
        var (first, second) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        (await admin.AddBalanceAsync(second, "7")).Ok();
        (await admin.PostAsync("/v1/admin/billing/balances", $$"""{"userId":"ops","targetUserIds":["{{second}}","{{first}}"]}""")).IsExactly(
            "{\"balances\":[{\"userId\":\"" + second + "\",\"balance\":{\"currencyCode\":\"USD\",\"units\":\"7\",\"nanos\":0}},"
            + "{\"userId\":\"" + first + "\",\"balance\":{\"currencyCode\":\"USD\",\"units\":\"0\",\"nanos\":0}}]}");
        (await admin.PostAsync("/v1/admin/billing/balances", $$"""{"targetUserIds":["{{second}}","nobody"]}""")).Problem(HttpStatusCode.NotFound, "account-unknown", "targetUserIds");
        (await admin.PostAsync("/v1/admin/billing/balances", """{"targetUserIds":[]}""")).Problem(HttpStatusCode.BadRequest, "invalid-field", "targetUserIds");
        (await admin.PostAsync("/v1/admin/billing/balances", """{"targetUserIds":["a",null]}""")).Problem(HttpStatusCode.BadRequest, "invalid-field", "targetUserIds");
        (await admin.PostAsync("/v1/admin/billing/balances:add", """{"targetUserId":"nobody","amount":{"currencyCode":"USD","units":"1"}}"""))
            .Problem(HttpStatusCode.NotFound, "account-unknown", "targetUserId");
    }

    [Fact]
    public async Task Spending_is_three_rolling_sums_of_usage_and_money_added_is_none()
    {
        var account = await server.OpenAccountAsync();
        (await admin.AddBalanceAsync(account, "7")).Ok();
        const string zero = """{"currencyCode":"USD","units":"0","nanos":0}""";
        (await server.As(account).GetAsync("/v1/billing/spending/summary")).IsExactly($$"""{"spend24h":{{zero}},"spend7d":{{zero}},"spend30d":{{zero}}}""");
        (await admin.PostAsync("/v1/admin/billing/spending/summary", $$"""{"targetUserIds":["{{account}}"]}"""))
            .IsExactly($$"""{"summaries":[{"userId":"{{account}}","spend24h":{{zero}},"spend7d":{{zero}},"spend30d":{{zero}}}]}""");
        (await admin.PostAsync("/v1/admin/billing/spending/summary", """{"targetUserIds":["nobody"]}""")).Problem(HttpStatusCode.NotFound, "account-unknown", "targetUserIds");
    }

    [Fact]
    public async Task Usage_is_a_negative_transaction_lowers_the_balance_as_it_accrues_and_counts_as_spending()
    {
        var account = await server.OpenAccountAsync();
        (await admin.AddBalanceAsync(account, "100")).Ok();
        var product = new GpuProduct($"NVIDIA-H200-{account}");
        var now = TimeProvider.System.GetUtcNow();
        await server.Services.GetRequiredService<Prices>().PublishAsync("usage-test", new Dictionary<GpuProduct,
            Money>
        { [product] = Money.Parse("2.00") }, [], now.AddHours(-2), CancellationToken.None);
        await server.Services.GetRequiredService<RunIntervals>().OpenAsync(
            new RunStart
            {
                Pod = new PodId(Guid.NewGuid()),
                PodName = "job-0",
                Deployment = new DeploymentId(Guid.NewGuid()),
                DeploymentName = "job",
                Namespace = "default",
                Account = new AccountId(account),
                Node = "gpu-a",
                Product = product,
                Gpus = 4,
                StartedAt = now.AddHours(-1),
            },
            CancellationToken.None);

        var customer = server.As(account);
        var accrued = (await customer.GetAsync("/v1/billing/balance")).Ok().GetProperty("balance").GetProperty("units").GetString();
        Assert.Equal("91", accrued);

        await server.Services.GetRequiredService<Meter>().SettleAsync(new AccountId(account), now, CancellationToken.None);
        var row = (await AllTransactionsAsync(account))[0];
        Assert.Equal("TRANSACTION_TYPE_GPU_USAGE", row.GetProperty("type").GetString());
        Assert.Equal("""{"currencyCode":"USD","units":"-8","nanos":0}""", row.GetProperty("amount").GetRawText());
        Assert.Equal("job", row.GetProperty("details").GetProperty("deploymentName").GetString());
        const string eight = """{"currencyCode":"USD","units":"8","nanos":0}""";
        (await customer.GetAsync("/v1/billing/spending/summary")).IsExactly($$"""{"spend24h":{{eight}},"spend7d":{{eight}},"spend30d":{{eight}}}""");

        var overview = (await customer.GetAsync("/v1/billing/overview")).Ok();
        Assert.Equal(
            ["asOf", "timeZone", "balance", "held", "available", "burnPerHour", "currentBilling", "spending", "exhaustsAt"],
            overview.EnumerateObject().Select(member => member.Name));
        Assert.Equal(eight, overview.GetProperty("burnPerHour").GetRawText());
        // What accrued since is on both sides: nothing is lost in between.
        Assert.Equal(100_000_000_000, Nanos(overview.GetProperty("balance")) + Nanos(overview.GetProperty("currentBilling").GetProperty("monthToDate")));
        Assert.Equal("UTC", overview.GetProperty("timeZone").GetString());
        Assert.Equal(1, overview.GetProperty("currentBilling").GetProperty("nextBillingAt").GetDateTime().Day);
        Assert.Equal(["today", "lastWeek", "lastMonth"], overview.GetProperty("spending").EnumerateObject().Select(member => member.Name));

        var buckets = (await customer.GetAsync("/v1/billing/spending/history")).Ok().GetProperty("buckets").EnumerateArray().ToList();
        Assert.Equal(31, buckets.Count);
        Assert.Equal(8_000_000_000, buckets.Sum(bucket => Nanos(bucket.GetProperty("amount"))));
        Assert.All(buckets, bucket => Assert.Equal(["bucketStart", "amount", "costSaving", "gpuAmount"], bucket.EnumerateObject().Select(member => member.Name)));

        static long Nanos(JsonElement money) => long.Parse(money.GetProperty("units").GetString()!, CultureInfo.InvariantCulture) * 1_000_000_000
            + money.GetProperty("nanos").GetInt32();
    }

    [Fact]
    public async Task Fifty_parallel_adds_with_one_key_are_one_entry_with_one_answer()
    {
        var account = await server.OpenAccountAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => admin.AddBalanceAsync(account, "5", "the-same-key")));
        Assert.All(answers, answer => answer.IsExactly("""{"balance":{"currencyCode":"USD","units":"5","nanos":0}}"""));
        Assert.Single(await AllTransactionsAsync(account));
    }

    [Fact]
    public async Task Fifty_parallel_adds_without_a_key_are_fifty_entries()
    {
        var account = await server.OpenAccountAsync();
        foreach (var answer in await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => admin.AddBalanceAsync(account, "1")))) answer.Ok();
        (await server.As(account).GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"50","nanos":0}}""");
    }

    [Fact]
    public async Task One_key_with_another_body_is_a_conflict_and_moves_nothing()
    {
        var (account, other) = (await server.OpenAccountAsync(), await server.OpenAccountAsync());
        (await admin.AddBalanceAsync(account, "5", "key-of-two-bodies")).Ok();
        (await admin.AddBalanceAsync(account, "6", "key-of-two-bodies")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        (await admin.AddBalanceAsync(other, "5", "key-of-two-bodies")).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        (await server.As(other).GetAsync("/v1/billing/balance")).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
        Assert.Single(await AllTransactionsAsync(account));

        (await server.As("other-ops", "ADMIN").AddBalanceAsync(account, "6", "key-of-two-bodies")).Ok();
        Assert.Equal(2, (await AllTransactionsAsync(account)).Count);
    }

    [Fact]
    public async Task A_transaction_has_the_public_members_its_details_and_its_month_and_no_more()
    {
        var account = await server.OpenAccountAsync();
        (await admin.PostAsync("/v1/admin/billing/balances:add", $$$"""{"targetUserId":"{{{account}}}","amount":{"currencyCode":"USD","units":"4"},"reason":"welcome"}""")).Ok();
        var page = (await server.As(account).GetAsync("/v1/billing/transactions")).Ok();
        Assert.Equal(["transactions", "nextPageToken"], page.EnumerateObject().Select(member => member.Name));
        Assert.Equal("", page.GetProperty("nextPageToken").GetString());
        var row = Assert.Single(page.GetProperty("transactions").EnumerateArray());
        Assert.Equal(
            ["transactionId", "stripePaymentIntentId", "paymentMethodId", "createdAt", "amount", "description", "status", "type",
                "details", "month"],
            row.EnumerateObject().Select(member => member.Name));
        Assert.NotEqual("", row.GetProperty("transactionId").GetString());
        Assert.Equal("", row.GetProperty("stripePaymentIntentId").GetString());
        Assert.Equal("", row.GetProperty("paymentMethodId").GetString());
        Assert.EndsWith("Z", row.GetProperty("createdAt").GetString(), StringComparison.Ordinal);
        Assert.InRange(row.GetProperty("createdAt").GetDateTimeOffset() - TimeProvider.System.GetUtcNow(), TimeSpan.FromMinutes(-5),
            TimeSpan.FromMinutes(5));
        Assert.Equal("""{"currencyCode":"USD","units":"4","nanos":0}""", row.GetProperty("amount").GetRawText());
        Assert.Equal("TRANSACTION_STATUS_SUCCEEDED", row.GetProperty("status").GetString());
        Assert.Equal("TRANSACTION_TYPE_CREDIT_GRANT", row.GetProperty("type").GetString());
        Assert.Equal(JsonValueKind.Object, row.GetProperty("details").ValueKind);
        Assert.Contains("welcome", row.GetRawText(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Pacific/Kiritimati")]
    [InlineData("Pacific/Pago_Pago")]
    public async Task A_transaction_is_listed_under_the_month_that_its_account_had(string zone)
    {
        var account = new AccountId(await server.OpenAccountAsync());
        await server.Services.GetRequiredService<Accounts>().DeclareAsync(account, new AccountPolicy(account.Value, null, null, zone), TestContext.Current.CancellationToken);
        (await admin.AddBalanceAsync(account.Value, "4")).Ok();
        var customer = server.As(account.Value);
        var row = (await customer.GetAsync("/v1/billing/transactions")).Ok().GetProperty("transactions")[0];
        var there = TimeZoneInfo.ConvertTime(row.GetProperty("createdAt").GetDateTimeOffset(), TimeZoneInfo.FindSystemTimeZoneById(zone));
        Assert.Equal($"{there:yyyy-MM}", row.GetProperty("month").GetString());
        var detail = (await customer.GetAsync($"/v1/billing/transactions/{row.GetProperty("transactionId").GetString()}")).Ok();
        Assert.Equal(row.GetRawText(), detail.GetProperty("transaction").GetRawText());
    }

    [Fact]
    public async Task Pages_show_every_transaction_once_while_new_ones_arrive()
    {
        var account = await server.OpenAccountAsync();
        var ledger = server.Services.GetRequiredService<Ledger>();
        Task AddAsync(string key, int units) => ledger.PostAsync(Movements.CreditGrant(new AccountId(account), Money.FromUnits(units),
            $"{account}/{key}", "ops", key), CancellationToken.None);
        for (var i = 1; i <= 250; i++) await AddAsync($"before-{i}", i);

        var (seen, token, page) = (new List<long>(), "", 0);
        do
        {
            var answer = (await server.As(account).GetAsync($"/v1/billing/transactions?pageSize=17&pageToken={token}")).Ok();
            var rows = answer.GetProperty("transactions").EnumerateArray().Select(UnitsOf).ToArray();
            token = answer.GetProperty("nextPageToken").GetString()!;
            Assert.True(rows.Length == 17 || token == "");
            seen.AddRange(rows);
            await AddAsync($"after-{page++}", 1000);
        }
        while (token != "");

        Assert.Equal(Enumerable.Range(1, 250).Reverse().Select(units => (long)units), seen);
        Assert.Equal(15, page);
    }

    [Theory]
    [InlineData("", 20)]
    [InlineData("?pageSize=0", 20)]
    [InlineData("?pageSize=1", 1)]
    [InlineData("?pageSize=100", 100)]
    [InlineData("?pageSize=5000", 100)]
    public async Task A_page_has_twenty_rows_unless_asked_and_a_hundred_at_most(string query, int expected)
    {
        var account = await server.OpenAccountAsync();
        var ledger = server.Services.GetRequiredService<Ledger>();
        for (var i = 0; i < 101; i++) await ledger.PostAsync(Movements.CreditGrant(new AccountId(account), Money.FromUnits(1),
            $"{account}/{i}", "ops", ""), CancellationToken.None);
        Assert.Equal(expected, (await server.As(account).GetAsync($"/v1/billing/transactions{query}")).Ok().GetProperty("transactions").GetArrayLength());
    }

    [Fact]
    public async Task A_last_page_that_is_full_says_that_it_is_the_last()
    {
        var account = await server.OpenAccountAsync();
        for (var i = 0; i < 4; i++) (await admin.AddBalanceAsync(account, "1")).Ok();
        var first = (await server.As(account).GetAsync("/v1/billing/transactions?pageSize=2")).Ok();
        var second = (await server.As(account).GetAsync($"/v1/billing/transactions?pageSize=2&pageToken={first.GetProperty("nextPageToken").GetString()}")).Ok();
        Assert.Equal(2, second.GetProperty("transactions").GetArrayLength());
        Assert.Equal("", second.GetProperty("nextPageToken").GetString());
    }

    [Fact]
    public async Task Transactions_are_filtered_by_type_and_period_and_shown_one_by_one()
    {
        var account = await server.OpenAccountAsync();
        var customer = server.As(account);
        (await customer.AttachAsync("pm_card_visa")).Ok();
        foreach (var units in (string[])["1", "2", "3"]) (await customer.TopUpAsync(units)).Ok();
        (await admin.AddBalanceAsync(account, "4")).Ok();
        const string topUps = "/v1/billing/transactions?type=TRANSACTION_TYPE_TOP_UP";
        var first = (await customer.GetAsync($"{topUps}&pageSize=2")).Ok();
        Assert.Equal([3L, 2L], first.GetProperty("transactions").EnumerateArray().Select(UnitsOf));
        var token = first.GetProperty("nextPageToken").GetString();
        Assert.Equal([1L], (await customer.GetAsync($"{topUps}&pageSize=2&pageToken={token}")).Ok().GetProperty("transactions").EnumerateArray().Select(UnitsOf));
        // A token is good for its own filter only.
        foreach (var other in (string[])["/v1/billing/transactions?", "/v1/billing/transactions?type=TRANSACTION_TYPE_CREDIT_GRANT&", $"{topUps}&from=2026-01-01T00:00:00Z&"])
        {
            (await customer.GetAsync($"{other}&pageToken={token}")).Problem(HttpStatusCode.BadRequest, "bad-page-token", "pageToken");
        }

        var rows = await AllTransactionsAsync(account);
        var (newest, oldest) = (rows[0], rows[^1]);
        var since = newest.GetProperty("createdAt").GetString();
        Assert.Equal([4L], (await customer.GetAsync($"/v1/billing/transactions?from={since}")).Ok().GetProperty("transactions").EnumerateArray().Select(UnitsOf));
        Assert.Equal([3L, 2L, 1L], (await customer.GetAsync($"/v1/billing/transactions?until={since}")).Ok().GetProperty("transactions").EnumerateArray().Select(UnitsOf));

        var id = oldest.GetProperty("transactionId").GetString();
        var detail = (await customer.GetAsync($"/v1/billing/transactions/{id}")).Ok();
        Assert.Equal(["transaction", "effectiveAt", "corrects", "correctedBy"], detail.EnumerateObject().Select(member => member.Name));
        Assert.Equal(oldest.GetRawText(), detail.GetProperty("transaction").GetRawText());
        foreach (var unknown in (string[])["txn_none", "%20", Guid.NewGuid().ToString()])
        {
            (await customer.GetAsync($"/v1/billing/transactions/{unknown}")).Problem(HttpStatusCode.NotFound, "transaction-unknown");
        }

        // Another's is no more there than one that never was.
        (await server.As(await server.OpenAccountAsync()).GetAsync($"/v1/billing/transactions/{id}")).Problem(HttpStatusCode.NotFound, "transaction-unknown");
    }

    [Theory]
    [InlineData("type=TOP_UP", "type")]
    [InlineData("from=yesterday", "from")]
    [InlineData("from=2026-03-01", "from")]
    [InlineData("until=2026-03-01T00:00:00", "until")]
    [InlineData("until=0001-01-01T00:00:00Z", "until")]
    [InlineData("from=2026-03-02T00:00:00Z&until=2026-03-02T00:00:00Z", "until")]
    [InlineData("from=2026-03-02T00:00:00Z&until=2026-03-02T01:00:00%2B02:00", "until")]
    public async Task A_filter_that_is_wrong_is_a_problem(string query, string field)
        => (await server.As(await server.OpenAccountAsync()).GetAsync($"/v1/billing/transactions?{query}")).Problem(HttpStatusCode.BadRequest, "invalid-field", field);

    private async Task<IReadOnlyList<JsonElement>> AllTransactionsAsync(string account) =>
        [.. (await server.As(account).GetAsync("/v1/billing/transactions?pageSize=100")).Ok().GetProperty("transactions").EnumerateArray()];

    private static long UnitsOf(JsonElement row) => long.Parse(row.GetProperty("amount").GetProperty("units").GetString()!,
        CultureInfo.InvariantCulture);

    [Fact]
    public async Task An_adjustment_is_of_either_sign_has_a_reason_and_takes_no_more_than_there_is()
    {
        var account = await server.OpenAccountAsync();
        (await AdjustAsync("10")).Ok();
        (await AdjustAsync("-4", key: account)).IsExactly("""{"balance":{"currencyCode":"USD","units":"6","nanos":0}}""");
        (await AdjustAsync("-4", key: account)).IsExactly("""{"balance":{"currencyCode":"USD","units":"6","nanos":0}}""");
        (await AdjustAsync("-5", key: account)).Problem(HttpStatusCode.Conflict, "idempotency-key-reused");
        Assert.Contains("less than 7.00", (await AdjustAsync("-7")).Problem(HttpStatusCode.Conflict, "balance-too-low"), StringComparison.Ordinal);
        (await AdjustAsync("0")).Problem(HttpStatusCode.BadRequest, "invalid-field", "amount");
        (await AdjustAsync("1", reason: " ")).Problem(HttpStatusCode.BadRequest, "invalid-field", "reason");
        (await AdjustAsync("1", target: "nobody")).Problem(HttpStatusCode.NotFound, "account-unknown", "targetUserId");
        Assert.Equal("6", (await server.As(account).GetAsync("/v1/billing/balance")).Ok().GetProperty("balance").GetProperty("units").GetString());

        Task<Answer> AdjustAsync(string units, string? key = null, string reason = "by hand", string? target = null) => admin.PostAsync(
            "/v1/admin/billing/balances:adjust",
            $$$"""{"targetUserId":"{{{target ?? account}}}","amount":{"currencyCode":"USD","units":"{{{units}}}"},"reason":"{{{reason}}}"}""", key);
    }

    [Fact]
    public async Task A_grant_made_in_error_is_reversed_once_and_real_money_is_not()
    {
        var account = await server.OpenAccountAsync();
        var customer = server.As(account);
        (await admin.AddBalanceAsync(account, "10")).Ok();
        var grant = await NewestAsync();
        (await ReverseAsync(grant)).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
        var reversal = await NewestAsync();
        (await ReverseAsync(grant)).IsExactly("""{"balance":{"currencyCode":"USD","units":"0","nanos":0}}""");
        Assert.Equal(reversal, await NewestAsync());
        (await ReverseAsync(reversal)).Problem(HttpStatusCode.Conflict, "cannot-be-taken-back");

        (await customer.AttachAsync("pm_card_visa")).Ok();
        (await customer.TopUpAsync("5")).Ok();
        Assert.Contains("payment company", (await ReverseAsync(await NewestAsync())).Problem(HttpStatusCode.Conflict, "cannot-be-taken-back"), StringComparison.Ordinal);
        (await ReverseAsync("txn_none")).Problem(HttpStatusCode.NotFound, "transaction-unknown");
        (await admin.PostAsync($"/v1/admin/billing/transactions/{grant}:reverse", "{}")).Problem(HttpStatusCode.BadRequest, "invalid-field", "reason");
        (await customer.PostAsync($"/v1/admin/billing/transactions/{grant}:reverse", "{}")).Problem(HttpStatusCode.Forbidden, "admins-only");

        Task<Answer> ReverseAsync(string transaction) => admin.PostAsync($"/v1/admin/billing/transactions/{transaction}:reverse", """{"reason":"typo"}""");

        async Task<string> NewestAsync() => (await customer.GetAsync("/v1/billing/transactions?pageSize=1")).Ok()
            .GetProperty("transactions")[0].GetProperty("transactionId").GetString()!;
    }
}
