using System.Globalization;
using Microsoft.Playwright;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Console.Tests;

/// <summary>Every figure on every page is the API's.</summary>
public sealed class FiguresTests(ConsoleFixture fixture) : ConsoleTest(fixture)
{
    private static readonly GpuProduct H100 = new("NVIDIA-H100-80GB-HBM3");

    /// <summary>An account with everything that the sample has, of which nothing runs: its figures stand still.</summary>
    private async Task<string> StillAccountAsync()
    {
        var (account, now) = (await NewAccountAsync("Europe/Berlin"), TimeProvider.System.GetUtcNow());
        var id = new AccountId(account);
        await new PaymentMethods(Site.Database, new SandboxPaymentProvider(), TimeProvider.System).AttachAsync(id, "pm_card_visa", Cancellation);
        await new Ledger(Site.Database).PostAsync(Movements.CreditGrant(id, Money.Parse("812.345678901"), account, "platform", "to be spent"), Cancellation);
        var runs = new RunIntervals(Site.Database);
        for (var day = 40; day >= 0; day -= 4)
        {
            var started = now.AddDays(-day).AddHours(-3);
            await Fixture.Sample.StartAsync(id, $"work-{day}", H100, 1, started, Cancellation);
        }

        foreach (var (run, i) in (await runs.ListOpenAsync(Cancellation)).Where(run => run.Account == id).Select((run, i) => (run, i)))
        {
            await runs.CloseAsync(run.Pod, run.StartedAt.AddSeconds(3_000.123457 + i), Cancellation);
        }

        await new TokenMeter(Site.Database).IngestAsync(
            [.. Enumerable.Range(0, 34).Select(i => new UsageEvent(account, $"{i}", id, SampleAccounts.Model, now.AddDays(-i).AddMinutes(-1), 123_457 + i, 40_001, 7_919))], Cancellation);
        await new Meter(Site.Database).SettleAsync(id, TimeProvider.System.GetUtcNow(), Cancellation);
        return account;
    }

    [Fact]
    public async Task Of_the_overview()
    {
        var account = await StillAccountAsync();
        var page = await OpenAsync(account);
        var overview = await Site.ApiAsync(account, "/v1/billing/overview");
        Assert.NotEqual("0.00", Figures.Amount(overview, "balance"));
        foreach (var (name, path) in new (string, string[])[]
        {
            ("balance", ["balance"]), ("available", ["available"]), ("held", ["held"]), ("burn", ["burnPerHour"]), ("month-to-date", ["currentBilling", "monthToDate"]),
            ("today", ["spending", "today"]), ("last-week", ["spending", "lastWeek"]), ("last-month", ["spending", "lastMonth"]),
        })
        {
            Assert.Equal((name, Figures.Amount(overview, path)), (name, await AmountAsync(Test(page, name))));
        }

        var calendar = AccountCalendar.Of("Europe/Berlin");
        var next = calendar.DayOf(overview.GetProperty("currentBilling").GetProperty("nextBillingAt").GetDateTimeOffset());
        Assert.Equal(next.ToString("d MMM yyyy", CultureInfo.InvariantCulture), await Test(page, "next-billing").InnerTextAsync());

        await page.GetByText("Show as a table").ClickAsync();
        await Expect(Test(page, "day").First).ToBeVisibleAsync();
        var history = (await Site.ApiAsync(account, "/v1/billing/spending/history")).GetProperty("buckets").EnumerateArray().ToArray();
        var days = await Test(page, "day").AllAsync();
        Assert.Equal(history.Length, days.Count);
        foreach (var (bucket, i) in history.Reverse().Select((bucket, i) => (bucket, i)))
        {
            Assert.Equal(
                calendar.DayOf(bucket.GetProperty("bucketStart").GetDateTimeOffset()).ToString("yyyy-MM-dd", CultureInfo.InvariantCulture),
                await days[i].GetAttributeAsync("data-day"));
            var shown = await days[i].Locator(".amount").EvaluateAllAsync<string[]>("all => all.map(one => one.dataset.amount)");
            Assert.Equal(Figures.Amount(bucket, "gpuAmount"), shown[0]);
            Assert.Equal(Figures.Number(Figures.Amount(bucket, "amount")) - Figures.Number(shown[0]), Figures.Number(shown[1]));
        }
    }

    [Fact]
    public async Task Of_transactions_to_the_last_page_and_of_each_ones_details()
    {
        var account = await StillAccountAsync();
        var ledger = new Ledger(Site.Database);
        for (var i = 0; i < 120; i++) await ledger.PostAsync(Movements.CreditGrant(new(account), new Money(1_000_000_001 + i), $"{account}-{i}", "platform", $"grant {i}"), Cancellation);
        var expected = new List<(string Id, string Amount, string Month)>();
        for (var token = ""; ;)
        {
            var answer = await Site.ApiAsync(account, $"/v1/billing/transactions?pageSize=100&pageToken={token}");
            expected.AddRange(answer.GetProperty("transactions").EnumerateArray().Select(one => (one.GetProperty("transactionId").GetString()!, Figures.Amount(one, "amount"), one.GetProperty("month").GetString()!)));
            token = answer.GetProperty("nextPageToken").GetString();
            if (string.IsNullOrEmpty(token)) break;
        }

        var page = await OpenAsync(account, "/billing/transactions");
        // Scrolling is all that asks for more.
        var rows = Test(page, "transaction");
        await Expect(rows).Not.ToHaveCountAsync(0);
        while (await rows.CountAsync() < expected.Count)
        {
            var before = await rows.CountAsync();
            await page.EvaluateAsync("() => window.scrollTo(0, document.documentElement.scrollHeight)");
            await page.WaitForFunctionAsync("before => document.querySelectorAll('[data-test=transaction]').length > before", before);
        }

        await Expect(page.GetByText("that is all")).ToBeVisibleAsync();
        var shown = await rows.EvaluateAllAsync<string[][]>("all => all.map(row => [row.dataset.id, row.querySelector('.amount').dataset.amount])");
        Assert.Equal(expected.OrderByDescending(one => one.Month, StringComparer.Ordinal).Select(one => (one.Id, one.Amount)), shown.Select(row => (row[0], row[1])));

        var usage = page.Locator("[data-test=transaction]").Filter(new() { HasText = "GPU usage" }).First;
        var id = await usage.GetAttributeAsync("data-id");
        await usage.GetByRole(AriaRole.Button).ClickAsync();
        var sheet = page.GetByRole(AriaRole.Dialog);
        var details = (await Site.ApiAsync(account, $"/v1/billing/transactions/{id}")).GetProperty("transaction").GetProperty("details");
        foreach (var member in (string[])["deploymentName", "namespace", "podName", "node", "product"]) await Expect(sheet).ToContainTextAsync(details.GetProperty(member).GetString()!);
        await Expect(sheet).ToContainTextAsync(details.GetProperty("priceVersion").GetRawText());
        await Expect(sheet).ToContainTextAsync(id!);
        // Keys go to where the focus is, which comes into the dialog a moment after its text.
        await page.WaitForFunctionAsync("() => document.activeElement.closest('.mud-dialog-container') !== null");
        await page.Keyboard.PressAsync("Escape");
        await Expect(sheet).ToHaveCountAsync(0);

        var tokens = page.Locator("[data-test=transaction]").Filter(new() { HasText = "Serverless usage of" }).First;
        await tokens.ClickAsync();
        await Expect(sheet).ToContainTextAsync(SampleAccounts.Model);
    }

    [Fact]
    public async Task Of_serverless_usage_for_each_period()
    {
        var account = await StillAccountAsync();
        var page = await OpenAsync(account, "/billing/serverless-usage");
        // Connected is not yet read.
        await Expect(page.GetByLabel("Period")).ToBeVisibleAsync();
        var periods = await page.GetByLabel("Period").Locator("option").EvaluateAllAsync<string[]>("all => all.map(one => one.value)");
        Assert.True(periods.Length >= 3, string.Join(' ', periods));
        foreach (var period in periods)
        {
            await page.GetByLabel("Period").SelectOptionAsync(period);
            var usage = await Site.ApiAsync(account, $"/v1/billing/serverless-usage?month={period}");
            await Expect(Test(page, "input")).ToHaveAttributeAsync("data-count", $"{usage.GetProperty("inputTokens").GetInt64()}");
            await Expect(Test(page, "output")).ToHaveAttributeAsync("data-count", $"{usage.GetProperty("outputTokens").GetInt64()}");
            await Expect(Test(page, "cached")).ToHaveAttributeAsync("data-count", $"{usage.GetProperty("cachedTokens").GetInt64()}");
            Assert.Equal(Figures.Amount(usage, "totalCost"), await AmountAsync(Test(page, "cost")));
            foreach (var model in usage.GetProperty("models").EnumerateArray())
            {
                var row = page.Locator($"[data-test=model][data-model='{model.GetProperty("model").GetString()}']");
                Assert.Equal(
                    new[] { Figures.Amount(model, "savings"), Figures.Amount(model, "cost") },
                    await row.Locator(".amount").EvaluateAllAsync<string[]>("all => all.map(one => one.dataset.amount)"));
                await Expect(row).ToContainTextAsync(model.GetProperty("inputTokens").GetInt64().ToString("#,##0", CultureInfo.InvariantCulture));
            }

            if (await page.GetByText("Show as a table").CountAsync() == 1) await page.GetByText("Show as a table").ClickAsync();
            await Expect(page.GetByText("Hide the table")).ToBeVisibleAsync();
            Assert.Equal(
                usage.GetProperty("days").EnumerateArray().Select(day => (day.GetProperty("date").GetString()!, Figures.Amount(day, "cost"))).OrderDescending(),
                (await Test(page, "day").EvaluateAllAsync<string[][]>("all => all.map(row => [row.dataset.day, row.querySelector('.amount').dataset.amount])")).Select(row => (row[0], row[1])));
        }

        foreach (var price in (await Site.ApiAsync(account, "/v1/billing/serverless-pricing")).GetProperty("pricing").EnumerateArray())
        {
            Assert.Equal(
                new[] { Figures.Amount(price, "inputPrice"), Figures.Amount(price, "outputPrice"), Figures.Amount(price, "cachedPrice") },
                await page.Locator($"[data-test=price][data-model='{price.GetProperty("model").GetString()}'] .amount").EvaluateAllAsync<string[]>("all => all.map(one => one.dataset.amount)"));
        }
    }

    [Fact]
    public async Task Of_deployments_and_why_one_was_suspended()
    {
        var account = await StillAccountAsync();
        var id = new AccountId(account);
        var now = TimeProvider.System.GetUtcNow();
        var stopped = await Fixture.Sample.StartAsync(id, "stopped", H100, 2, now.AddHours(-2), Cancellation);
        await new Meter(Site.Database).SuspendAsync(stopped, now.AddHours(-1), nameof(RefusalReason.BudgetExhausted), new CreditPolicy(), now.AddHours(-1), Cancellation);
        var page = await OpenAsync(account, "/deployments");
        await Expect(Test(page, "run").First).ToBeVisibleAsync();
        var answer = (await Site.ApiAsync(account, "/v1/billing/runs?pageSize=100")).GetProperty("runs").EnumerateArray().ToArray();
        Assert.Equal(12, answer.Length);
        foreach (var run in answer)
        {
            var row = page.Locator($"[data-test=run][data-pod='{run.GetProperty("pod").GetString()}']");
            Assert.Equal(
                new[] { Figures.Amount(run, "perGpuHour"), Figures.Amount(run, "cost") },
                await row.Locator(".amount").EvaluateAllAsync<string[]>("all => all.map(one => one.dataset.amount)"));
            foreach (var member in (string[])["deployment", "namespace", "podName", "node", "gpuProduct"]) await Expect(row).ToContainTextAsync(run.GetProperty(member).GetString()!);
            foreach (var uuid in run.GetProperty("gpuUuids").EnumerateArray()) await Expect(row).ToContainTextAsync(uuid.GetString()!);
        }

        Assert.Equal("BudgetExhausted", answer[0].GetProperty("suspendedBecause").GetString());
        await Expect(page.Locator("[data-test=run]").First).ToContainTextAsync("Its own budget was spent");
    }

    [Fact]
    public async Task Of_cards_and_of_all_accounts()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing/payment-methods");
        var cards = (await Site.ApiAsync(SampleAccounts.Customer, "/v1/billing/stripe/customers/payment-methods")).GetProperty("paymentMethods").EnumerateArray().ToArray();
        var rows = Test(page, "card");
        await Expect(rows).ToHaveCountAsync(cards.Length);
        for (var i = 0; i < cards.Length; i++)
        {
            await Expect(rows.Nth(i)).ToContainTextAsync($"{cards[i].GetProperty("brand").GetString()} ending {cards[i].GetProperty("last4").GetString()}");
            await Expect(rows.Nth(i)).ToContainTextAsync($"{cards[i].GetProperty("expMonth").GetInt32():00}/{cards[i].GetProperty("expYear").GetInt32()}");
            Assert.Equal(cards[i].GetProperty("isDefault").GetBoolean(), await rows.Nth(i).GetByText("Default", new() { Exact = true }).CountAsync() == 1);
        }

        await Expect(rows.Filter(new() { HasText = "American Express" })).ToContainTextAsync("Expired");

        var still = await StillAccountAsync();
        var platform = await OpenAsync("platform", "/accounts", "ADMIN/OWNER");
        await platform.GetByLabel("Search by name").FillAsync(still[5..]);
        await Expect(Test(platform, "account")).ToHaveCountAsync(1);
        var account = (await Site.ApiAsync("platform", $"/v1/admin/billing/accounts?search={still[5..]}", "ADMIN")).GetProperty("accounts")[0];
        Assert.Equal(
            new[] { Figures.Amount(account, "balance"), Figures.Amount(account, "burnPerHour") },
            await Test(platform, "account").Locator(".amount").EvaluateAllAsync<string[]>("all => all.map(one => one.dataset.amount)"));
        Assert.Equal("CARD_STATE_VALID", account.GetProperty("cardState").GetString());
        await Expect(Test(platform, "account")).ToContainTextAsync("Valid");
    }

    private static ILocatorAssertions Expect(ILocator locator) => Assertions.Expect(locator);
}
