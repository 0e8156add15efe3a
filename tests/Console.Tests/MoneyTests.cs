using Microsoft.Playwright;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;
using static Microsoft.Playwright.Assertions;

namespace Tensormesh.Console.Tests;

/// <summary>What a person does with money: adding it, by card and by hand, and what they are told when that does not work.</summary>
public sealed class MoneyTests(ConsoleFixture fixture) : ConsoleTest(fixture)
{
    [Fact]
    public async Task A_newcomer_adds_a_card_and_balance_and_sees_it_at_once()
    {
        var account = await NewAccountAsync();
        var page = await OpenAsync(account);
        await Expect(Test(page, "refusal")).ToContainTextAsync("no valid card on file");
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Balance" }).ClickAsync();
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Link, new() { Name = "Add one under Payment Methods" }).ClickAsync();
        await ConsoleSite.ComeToAsync(page, "**/billing/payment-methods");
        await AddCardAsync(page, "4242");
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await Expect(Test(page, "card")).ToContainTextAsync("Default");

        await page.GetByRole(AriaRole.Link, new() { Name = "Overview" }).ClickAsync();
        await Expect(Test(page, "refusal")).ToContainTextAsync("has nothing available");
        var dialog = await PreparePaymentAsync(page, "25.50");
        await Expect(dialog.Locator("[data-test=confirm]")).ToContainTextAsync("Charge $25.50 to Visa ending 4242?");
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Pay $25.50" }).DblClickAsync();
        await Expect(Test(page, "balance").Locator(".amount")).ToHaveAttributeAsync("data-amount", "25.50");
        await Expect(Test(page, "refusal")).ToHaveCountAsync(0);
        Assert.Equal("25.50", Figures.Amount(await Site.ApiAsync(account, "/v1/billing/balance"), "balance"));
        Assert.Single((await Site.ApiAsync(account, "/v1/billing/transactions")).GetProperty("transactions").EnumerateArray());
        var audit = (await Site.ApiAsync("platform", $"/v1/admin/audit?targetUserId={account}", "ADMIN")).GetProperty("events").EnumerateArray().ToArray();
        Assert.Equal(["AUDIT_ACTION_TOP_UP_ASKED", "AUDIT_ACTION_CARD_ATTACHED"], audit.Select(each => each.GetProperty("action").GetString()));
        Assert.All(audit, each => Assert.Equal(account, each.GetProperty("actor").GetString()));
    }

    [Theory]
    [InlineData("0002", "The card was declined")]
    [InlineData("9995", "The card has insufficient funds")]
    [InlineData("3184", "The bank asks the holder to authenticate")]
    public async Task A_card_that_is_declined_says_so_charges_nothing_and_another_can_be_tried(string last4, string said)
    {
        var account = await NewAccountAsync();
        var page = await OpenAsync(account, "/billing/payment-methods");
        await AddCardAsync(page, last4);
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await AddCardAsync(page, "4444");
        await Expect(Test(page, "card")).ToHaveCountAsync(2);
        await page.GetByRole(AriaRole.Link, new() { Name = "Overview" }).ClickAsync();
        var dialog = await PreparePaymentAsync(page, "10");
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Pay $10.00" }).ClickAsync();
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync(said);
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync("Nothing was charged");
        Assert.Empty((await Site.ApiAsync(account, "/v1/billing/transactions")).GetProperty("transactions").EnumerateArray());

        await dialog.GetByLabel("Card", new() { Exact = true }).SelectOptionAsync(new SelectOptionValue { Index = 1 });
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Continue" }).ClickAsync();
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Pay $10.00" }).ClickAsync();
        await Expect(Test(page, "balance").Locator(".amount")).ToHaveAttributeAsync("data-amount", "10.00");
    }

    [Theory]
    [InlineData("", "Write an amount")]
    [InlineData("abc", "Write an amount")]
    [InlineData("-5", "A top-up is from $1.00")]
    [InlineData("0.50", "A top-up is from $1.00")]
    [InlineData("100001", "to $100,000.00")]
    [InlineData("12.345", "whole cents")]
    public async Task An_amount_that_cannot_be_charged_is_refused_before_anything_is_asked(string amount, string said)
    {
        var page = await OpenAsync(SampleAccounts.Customer);
        var dialog = await PreparePaymentAsync(page, amount);
        await Expect(dialog).ToContainTextAsync(said);
        await Expect(dialog.GetByRole(AriaRole.Button, new() { Name = "Continue" })).ToBeVisibleAsync();
    }

    [Fact]
    public async Task The_balance_falls_while_work_runs_without_a_reload_and_stops_at_zero()
    {
        var account = await NewAccountAsync();
        var (id, now) = (new AccountId(account), TimeProvider.System.GetUtcNow());
        await new Ledger(Site.Database).PostAsync(Movements.CreditGrant(id, Money.FromUnits(10), account, "platform", "to be spent"), Cancellation);
        // $3,600 an hour is a dollar a second; nobody settles or suspends here, so what is seen is the page's own counting.
        await Fixture.Sample.StartAsync(id, "hungry", new("NVIDIA-H100-80GB-HBM3"), 1_440, now, Cancellation);
        var page = await OpenAsync(account);
        var seen = new SortedSet<decimal>();
        await Expect(Test(page, "running")).ToContainTextAsync("hungry");
        while (!seen.Contains(0))
        {
            Assert.True(TimeProvider.System.GetUtcNow() - now < TimeSpan.FromSeconds(60), string.Join(' ', seen));
            seen.Add(Figures.Number(await AmountAsync(Test(page, "balance"))));
            await page.WaitForTimeoutAsync(100);
        }

        Assert.True(seen.Count > 4, string.Join(' ', seen));
        Assert.True(seen.Min == 0, string.Join(' ', seen));
        await Expect(Test(page, "runway")).ToHaveTextAsync("used up");
    }

    [Fact]
    public async Task Members_read_and_change_nothing()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing", "USER/MEMBER");
        await Expect(Test(page, "balance")).ToBeVisibleAsync();
        await Expect(page.GetByRole(AriaRole.Button, new() { Name = "Add Balance" })).ToHaveCountAsync(0);
        await page.GetByRole(AriaRole.Link, new() { Name = "Payment Methods" }).ClickAsync();
        await Expect(page.GetByText("You are a member of this account")).ToBeVisibleAsync();
        foreach (var name in (string[])["Add Card", "Remove Visa ending 4242", "Turn on", "Save address"]) await Expect(page.GetByRole(AriaRole.Button, new() { Name = name })).ToHaveCountAsync(0);
        await Expect(page.GetByLabel("Charge")).ToBeDisabledAsync();
        await page.GotoAsync(new Uri(Site.Address, "/accounts").ToString());
        await Expect(page.GetByText("for administrators only")).ToBeVisibleAsync();
        await page.GotoAsync(new Uri(Site.Address, $"/billing?account={SampleAccounts.LongName}").ToString());
        await Expect(page.GetByText($"may not see '{SampleAccounts.LongName}'")).ToBeVisibleAsync();
        await Expect(Test(page, "balance")).ToHaveCountAsync(0);
    }

    [Fact]
    public async Task The_last_card_of_running_work_warns_of_what_will_happen()
    {
        var account = await NewAccountAsync();
        var (id, now) = (new AccountId(account), TimeProvider.System.GetUtcNow());
        await new Ledger(Site.Database).PostAsync(Movements.CreditGrant(id, Money.FromUnits(1_000), account, "platform", "to be spent"), Cancellation);
        await Fixture.Sample.StartAsync(id, "busy", new("NVIDIA-L40S"), 1, now, Cancellation);
        var page = await OpenAsync(account, "/billing/payment-methods");
        await AddCardAsync(page, "4242");
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await page.GetByRole(AriaRole.Button, new() { Name = "Remove Visa ending 4242" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        await Expect(dialog).ToContainTextAsync("It is the last valid card. Without another, what runs is stopped 1 d 0 h from now");
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Keep it" }).ClickAsync();
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await page.GetByRole(AriaRole.Button, new() { Name = "Remove Visa ending 4242" }).ClickAsync();
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Remove" }).ClickAsync();
        await Expect(Test(page, "card")).ToHaveCountAsync(0);
        await Expect(Test(page, "card-warning")).ToContainTextAsync("What runs is stopped at");
        await AddCardAsync(page, "4444");
        await AddCardAsync(page, "4242");
        await Expect(Test(page, "card-warning")).ToHaveCountAsync(0);
        await page.GetByRole(AriaRole.Button, new() { Name = "Make Visa ending 4242 the default" }).ClickAsync();
        await Expect(Test(page, "card").Filter(new() { HasText = "Visa" })).ToContainTextAsync("Default");
        await AddCardAsync(page, "0069");
        await Expect(dialog.Locator("[data-test=problem]")).ToContainTextAsync("has expired and was not added");
    }

    [Fact]
    public async Task Automatic_top_up_is_turned_on_with_caps_refuses_what_cannot_be_and_says_why_it_stopped()
    {
        var account = await NewAccountAsync();
        var page = await OpenAsync(account, "/billing/payment-methods");
        await AddCardAsync(page, "4242");
        await Expect(Test(page, "card")).ToHaveCountAsync(1);
        await Expect(Test(page, "auto-state")).ToHaveTextAsync("Off");
        foreach (var (label, amount) in new[] { ("When the balance is below", "20"), ("Charge", "10"), ("At most per day", "100"), ("At most per month", "$1,000") })
        {
            await page.GetByLabel(label, new() { Exact = true }).FillAsync(amount);
        }

        await page.GetByRole(AriaRole.Button, new() { Name = "Turn on" }).ClickAsync();
        await Expect(page.GetByRole(AriaRole.Alert).Filter(new() { HasText = "would not lift every balance" })).ToBeVisibleAsync();
        await page.GetByLabel("Charge", new() { Exact = true }).FillAsync("50");
        await page.GetByRole(AriaRole.Button, new() { Name = "Turn on" }).ClickAsync();
        await Expect(Test(page, "auto-state")).Not.ToHaveTextAsync("Off");
        var saved = (await Site.ApiAsync(account, "/v1/billing/auto-top-up")).GetProperty("autoTopUp");
        Assert.Equal(
            ("20.00", "50.00", "100.00", "1000.00"),
            (Figures.Amount(saved, "threshold"), Figures.Amount(saved, "amount"), Figures.Amount(saved, "dailyCap"), Figures.Amount(saved, "monthlyCap")));

        await ExecuteAsync("update auto_top_up set disabled_at = now(), declines_in_a_row = 3, disabled_because = 'The card was declined three times in a row.' where account = $1", account);
        await page.ReloadAsync();
        await ConsoleSite.LiveAsync(page);
        await Expect(Test(page, "auto-state")).ToHaveTextAsync("Stopped");
        await Expect(Test(page, "auto-why")).ToContainTextAsync("declined three times in a row");
        await page.GetByRole(AriaRole.Button, new() { Name = "Turn off" }).ClickAsync();
        await Expect(Test(page, "auto-state")).ToHaveTextAsync("Off");
    }

    [Fact]
    public async Task The_billing_address_is_on_the_statement()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing/payment-methods");
        await page.GetByLabel("Name or company").FillAsync("Acme <Research> GmbH");
        await page.GetByLabel("Street").FillAsync("Unter den Linden 1");
        await page.GetByLabel("City").FillAsync("Berlin");
        await page.GetByLabel("Country (two letters)").FillAsync("Germany");
        await page.GetByRole(AriaRole.Button, new() { Name = "Save address" }).ClickAsync();
        await Expect(page.GetByRole(AriaRole.Alert).Filter(new() { HasText = "two capital letters" })).ToBeVisibleAsync();
        await page.GetByLabel("Country (two letters)").FillAsync("de");
        await page.GetByRole(AriaRole.Button, new() { Name = "Save address" }).ClickAsync();
        await Expect(page.GetByText("The address is saved.")).ToBeVisibleAsync();
        var address = (await Site.ApiAsync(SampleAccounts.Customer, "/v1/billing/address")).GetProperty("address");
        Assert.Equal(("Acme <Research> GmbH", "DE"), (address.GetProperty("name").GetString(), address.GetProperty("country").GetString()));

        await page.GetByRole(AriaRole.Link, new() { Name = "Transactions" }).ClickAsync();
        await page.GetByRole(AriaRole.Button, new() { Name = "Export & statements" }).ClickAsync();
        var statement = await page.Context.RunAndWaitForPageAsync(
            () => page.GetByRole(AriaRole.Dialog).Locator(".statements").GetByRole(AriaRole.Link).First.ClickAsync());
        await Expect(statement.Locator("address")).ToContainTextAsync("Acme <Research> GmbH");
        await Expect(statement.GetByRole(AriaRole.Heading, new() { Level = 1 })).ToContainTextAsync("Statement 20");
    }

    [Fact]
    public async Task The_platforms_people_grant_adjust_and_take_back_with_a_reason_that_is_kept()
    {
        var account = await NewAccountAsync();
        var page = await OpenAsync("platform", "/accounts", "ADMIN/OWNER");
        await page.GetByLabel("Search by name").FillAsync(account);
        await ChangeAsync("grant", "50", "");
        await Expect(page.GetByRole(AriaRole.Dialog).Locator("[data-test=problem]")).ToContainTextAsync("Write a reason");
        await page.GetByLabel("Reason, kept").FillAsync("goodwill");
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Grant", Exact = true }).ClickAsync();
        await BalanceIsAsync("50.00");
        await ChangeAsync("take", "60", "too much");
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Adjust", Exact = true }).ClickAsync();
        await Expect(page.GetByRole(AriaRole.Dialog).Locator("[data-test=problem]")).ToContainTextAsync("The balance is less than $60.00: nothing was taken");
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Cancel" }).ClickAsync();
        await ChangeAsync("take", "20", "granted too much");
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Adjust", Exact = true }).ClickAsync();
        await BalanceIsAsync("30.00");

        await page.GetByRole(AriaRole.Link, new() { Name = account }).ClickAsync();
        await Expect(page.GetByText("You look at account")).ToBeVisibleAsync();
        await page.GetByRole(AriaRole.Link, new() { Name = "Transactions" }).ClickAsync();
        await ConsoleSite.ComeToAsync(page, $"**/billing/transactions?account={account}");
        await Test(page, "transaction").Filter(new() { HasText = "Adjustment" }).ClickAsync();
        await page.GetByLabel("Reason, kept in the audit log").FillAsync("it was right");
        await page.GetByRole(AriaRole.Button, new() { Name = "Take it back" }).ClickAsync();
        await Expect(Test(page, "transaction")).ToHaveCountAsync(3);
        Assert.Equal("50.00", Figures.Amount(await Site.ApiAsync(account, "/v1/billing/balance"), "balance"));
        var audit = (await Site.ApiAsync("platform", $"/v1/admin/audit?targetUserId={account}", "ADMIN")).GetProperty("events").EnumerateArray().ToArray();
        Assert.Equal(
            [("AUDIT_ACTION_TRANSACTION_REVERSED", "it was right"), ("AUDIT_ACTION_BALANCE_ADJUSTED", "granted too much"), ("AUDIT_ACTION_BALANCE_ADDED", "goodwill")],
            audit.Select(each => (each.GetProperty("action").GetString()!, each.GetProperty("details").GetProperty("reason").GetString()!)));

        async Task ChangeAsync(string kind, string amount, string reason)
        {
            await page.GetByRole(AriaRole.Button, new() { Name = $"Grant or adjust {account}" }).ClickAsync();
            var dialog = page.GetByRole(AriaRole.Dialog);
            await dialog.GetByLabel("What").SelectOptionAsync(kind);
            await dialog.GetByLabel("Amount in US dollars").FillAsync(amount);
            await dialog.GetByLabel("Reason, kept").FillAsync(reason);
            if (reason.Length == 0) await dialog.GetByRole(AriaRole.Button, new() { Name = "Grant", Exact = true }).ClickAsync();
        }

        Task BalanceIsAsync(string amount)
            => Expect(page.Locator($"[data-test=account][data-account={account}] .amount").First).ToHaveAttributeAsync("data-amount", amount);
    }

    [Fact]
    public async Task A_file_is_exported_with_its_progress_and_is_the_APIs()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing/transactions");
        await page.GetByRole(AriaRole.Button, new() { Name = "Export & statements" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        var month = await dialog.GetByLabel("Month").InputValueAsync();
        foreach (var (kind, path) in new[] { ("transactions", "transactions:export"), ("charges", "charges:export") })
        {
            await dialog.GetByLabel("What").SelectOptionAsync(kind);
            var download = await page.RunAndWaitForDownloadAsync(() => dialog.GetByRole(AriaRole.Button, new() { Name = "Export", Exact = true }).ClickAsync());
            Assert.Equal($"acme-{kind}-{month}.csv", download.SuggestedFilename);
            var text = await File.ReadAllTextAsync(await download.PathAsync(), Cancellation);
            await Expect(Test(page, "progress")).ToContainTextAsync("the file is complete");
            var lines = text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length - 1;
            Assert.True(lines > 0, text);
            await Expect(Test(page, "progress")).ToContainTextAsync($"{lines} rows");
            Assert.Equal(await Site.ApiTextAsync(SampleAccounts.Customer, $"/v1/billing/{path}?month={month}"), text);
        }
    }

    [Fact]
    public async Task Transactions_are_found_by_type_and_period()
    {
        var page = await OpenAsync(SampleAccounts.Customer, "/billing/transactions");
        await page.GetByLabel("Type").SelectOptionAsync("TopUp");
        await Expect(Test(page, "transaction")).ToHaveCountAsync(1);
        await Expect(Test(page, "transaction")).ToContainTextAsync("$1,500.00");
        await page.GetByLabel("Period").SelectOptionAsync(new SelectOptionValue { Index = 3 });
        await Expect(page.GetByText("Nothing fits these filters")).ToBeVisibleAsync();
        await page.GetByRole(AriaRole.Button, new() { Name = "Show all" }).ClickAsync();
        await Expect(Test(page, "transaction").Nth(5)).ToBeVisibleAsync();
        // Of tokens each month is a row of its own, under the month of its use.
        await Expect(page.Locator("tr.group").First).ToContainTextAsync("20");
    }

    private async Task ExecuteAsync(string sql, string account)
    {
        await using var connection = await Site.Database.OpenConnectionAsync(Cancellation);
        await using var command = new NpgsqlCommand(sql, connection) { Parameters = { new() { Value = account } } };
        Assert.Equal(1, await command.ExecuteNonQueryAsync(Cancellation));
    }
}
