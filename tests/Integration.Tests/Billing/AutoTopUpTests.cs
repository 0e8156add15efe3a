using Npgsql;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Cards charged with nobody there, at a Stripe of this machine.</summary>
public sealed class AutoTopUpTests(PostgresFixture postgres) : StripeTest(postgres)
{
    private static readonly AccountId Beta = new("beta");
    private static readonly AutoTopUpPlan Plan = new(Money.Parse("50.00"), Money.Parse("100.00"), Money.Parse("300.00"), Money.Parse("1000.00"));

    private AutoTopUps Auto { get; set; } = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        Auto = new(Database, Provider, Time);
    }

    [Fact]
    public async Task A_low_balance_is_topped_up_once_and_a_good_one_is_left_alone()
    {
        await OpenWithCardAsync(Acme);
        await OpenWithCardAsync(Beta);
        await GrantAsync(Acme, "49.99");
        await GrantAsync(Beta, "50.00");
        Assert.Empty(await RunAsync());

        Assert.True(await Auto.SaveAsync(Acme, Plan, Cancellation));
        Assert.True(await Auto.SaveAsync(Beta, Plan, Cancellation));
        Assert.Equal(new AutoTopUpResult(Acme, Plan.Amount, AutoTopUpOutcome.Succeeded, null), Assert.Single(await RunAsync()));
        Assert.Empty(await RunAsync());
        Assert.Equal((Money.Parse("149.99"), Money.Parse("50.00"), 10_000L), (await PostedAsync(), await PostedAsync(Beta), Stripe.Books.NetCents));
        var (settings, verdict) = await ReadAsync();
        Assert.Equal((Plan.Amount, Plan.Amount, AutoTopUpOutcome.Succeeded), (settings.ChargedToday, settings.ChargedThisMonth, settings.Last!.Outcome));
        Assert.Equal(AutoTopUpState.Watching, Assert.IsType<AutoTopUpVerdict.Idle>(verdict).State);
        Assert.Equal(new AutoTopUpCounts(2, 0), await Auto.CountAsync(Cancellation));

        await Auto.RemoveAsync(Acme, Cancellation);
        await SpendToAsync("1.00");
        Assert.Empty(await RunAsync());
        Assert.Equal(Plan.Amount, (await ReadAsync()).Settings.ChargedToday);
        Assert.False(await Auto.SaveAsync(new("nobody"), Plan, Cancellation));
        Assert.Null(await Auto.ReadAsync(new("nobody"), Cancellation));
    }

    [Fact]
    public async Task What_runs_is_paid_for_before_its_money_is_used_up()
    {
        await OpenWithCardAsync(Acme);
        await GrantAsync(Acme, "60.00");
        await PublishAsync(T0.AddDays(-1), (H100, "6.00"));
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        await RunAsync(gpus: 1, T0);
        // $6.00 an hour takes $60.00 to $50.00 in 100 minutes, and a minute before that it is seen coming.
        Time.SetUtcNow(T0.AddMinutes(98.9));
        Assert.Empty(await RunAsync());
        Time.SetUtcNow(T0.AddMinutes(99.1));
        Assert.Equal(AutoTopUpOutcome.Succeeded, Assert.Single(await RunAsync()).Outcome);
        Assert.Equal(Money.Parse("160.00"), await PostedAsync());
    }

    /// <summary>Bug class 7.</summary>
    [Fact]
    public async Task Many_processes_that_see_one_low_balance_charge_once()
    {
        await OpenWithCardAsync(Acme);
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        var rounds = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => Task.Run(() => new AutoTopUps(Database, Provider, Time).RunAsync(Cancellation))));
        Assert.Equal(AutoTopUpOutcome.Succeeded, Assert.Single(rounds.SelectMany(round => round.Results)).Outcome);
        Assert.Equal((1, Money.Parse("101.00")), (Stripe.Books.SucceededPayments, await PostedAsync()));
    }

    [Fact]
    public async Task The_database_itself_allows_one_attempt_at_a_time_and_no_plan_that_could_run_away()
    {
        await DeclareAsync(Acme);
        const string attempt = "insert into auto_top_up_attempt (account, number, amount_nanos, payment_method_id, begun_at, claimed_until) "
            + "values ('acme', {0}, 1, 'pm', now(), now())";
        await ExecuteAsync(string.Format(null, attempt, 1));
        Assert.Equal("auto_top_up_in_flight", (await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(string.Format(null, attempt, 2)))).ConstraintName);
        // Threshold, amount and caps, in hundredths of cents: each plan is wrong in one of them.
        foreach (var plan in (int[][])[[201, 200, 200, 200], [0, 200, 200, 200], [200, 250, 300, 300], [200, 200, 100, 200], [200, 200, 200, 100]])
        {
            var nanos = string.Join(", ", plan.Select(amount => amount * 100_000L));
            var error = await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(
                $"insert into auto_top_up (account, threshold_nanos, amount_nanos, daily_cap_nanos, monthly_cap_nanos, changed_at) values ('acme', {nanos}, now())"));
            Assert.Equal(PostgresErrorCodes.CheckViolation, error.SqlState);
        }
    }

    /// <summary>Bug class 6.</summary>
    [Fact]
    public async Task A_declined_card_is_left_alone_for_longer_each_time_and_after_three_for_good()
    {
        var card = await OpenWithCardAsync(Acme, "pm_card_chargeCustomerFail");
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        Assert.Equal(AutoTopUpOutcome.Declined, Assert.Single(await RunAsync()).Outcome);
        var (_, waiting) = await ReadAsync();
        Assert.Equal(AutoTopUpState.Waiting, Assert.IsType<AutoTopUpVerdict.Idle>(waiting).State);
        Assert.Contains("2026-03-01 13:00 UTC", ((AutoTopUpVerdict.Idle)waiting).Why, StringComparison.Ordinal);

        foreach (var (quiet, step) in (IEnumerable<(double, double)>)[(0.99, 0.02), (23.9, 0.2)])
        {
            Time.Advance(TimeSpan.FromHours(quiet));
            Assert.Empty(await RunAsync());
            Time.Advance(TimeSpan.FromHours(step));
            Assert.Equal(AutoTopUpOutcome.Declined, Assert.Single(await RunAsync()).Outcome);
        }

        // For a month of rounds nothing more is asked of the bank.
        var asked = Stripe.Requests;
        for (var day = 0; day < 30; day++)
        {
            Time.Advance(TimeSpan.FromDays(1));
            Assert.Empty(await RunAsync());
        }

        Assert.Equal(asked, Stripe.Requests);
        var disabled = Assert.IsType<AutoTopUpVerdict.Idle>((await ReadAsync()).Verdict);
        Assert.Equal(AutoTopUpState.Disabled, disabled.State);
        Assert.Contains("3 charges in a row failed", disabled.Why, StringComparison.Ordinal);
        Assert.Equal(new AutoTopUpCounts(1, 1), await Auto.CountAsync(Cancellation));

        Stripe.Books.Decline(card, null);
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        Assert.Equal(AutoTopUpOutcome.Succeeded, Assert.Single(await RunAsync()).Outcome);
        Assert.Equal((0, (string?)null), ((await ReadAsync()).Settings.DeclinesInARow, (await ReadAsync()).Settings.DisabledBecause));
        Assert.Equal(CardState.Valid, (await StandingAsync()).Cards.StateAt(Time.GetUtcNow()));
    }

    [Fact]
    public async Task A_success_in_between_begins_the_count_anew()
    {
        var card = await OpenWithCardAsync(Acme);
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        foreach (var declines in (int[])[1, 2])
        {
            Stripe.Books.Decline(card, "insufficient_funds");
            for (var i = 0; i < declines; i++)
            {
                Time.Advance(TimeSpan.FromDays(2));
                Assert.Equal(AutoTopUpOutcome.Declined, Assert.Single(await RunAsync()).Outcome);
            }

            Stripe.Books.Decline(card, null);
            Time.Advance(TimeSpan.FromDays(2));
            Assert.Equal(AutoTopUpOutcome.Succeeded, Assert.Single(await RunAsync()).Outcome);
            await SpendToAsync("1.00");
        }

        Assert.Equal((0, (DateTimeOffset?)null), ((await ReadAsync()).Settings.DeclinesInARow, (await ReadAsync()).Settings.RetryAt));
    }

    [Fact]
    public async Task A_bank_that_asks_the_holder_counts_as_a_decline_until_the_holder_has_answered()
    {
        await OpenWithCardAsync(Acme, "pm_card_authenticationRequired");
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        Assert.Equal(AutoTopUpOutcome.AuthenticationRequired, Assert.Single(await RunAsync()).Outcome);
        Assert.Equal((1, Money.Zero), ((await ReadAsync()).Settings.DeclinesInARow, (await ReadAsync()).Settings.ChargedToday));

        Stripe.Books.Authenticate(await ScalarAsync<string>("select payment_intent_id from top_up"), agrees: true);
        Assert.Equal(PaymentEffect.Credited, await Events.HandleAsync(Told("payment_intent.succeeded"), Cancellation));
        Assert.Equal((Money.Parse("101.00"), Plan.Amount), (await PostedAsync(), (await ReadAsync()).Settings.ChargedToday));
    }

    [Theory]
    [InlineData(FakeStripeFault.HangAfter)]
    [InlineData(FakeStripeFault.HangBefore)]
    [InlineData(FakeStripeFault.ErrorAfter)]
    [InlineData(FakeStripeFault.ResetAfter)]
    [InlineData(FakeStripeFault.Unavailable)]
    public async Task A_charge_in_doubt_is_gone_on_with_and_is_neither_lost_nor_doubled(FakeStripeFault fault)
    {
        await OpenWithCardAsync(Acme);
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        Stripe.Next(fault, "/v1/payment_intents", times: 4);
        Assert.Null(Assert.Single(await RunAsync()).Outcome);
        var (_, verdict) = await ReadAsync();
        Assert.Equal(AutoTopUpState.Charging, Assert.IsType<AutoTopUpVerdict.Idle>(verdict).State);
        // Whoever has it keeps it for a while, and nobody begins another.
        Assert.Empty(await RunAsync());
        for (var round = 0; round < 5 && Stripe.Books.NetCents + await ScalarAsync<long>("select count(*) from auto_top_up_attempt where ended_at is not null") < 10_001; round++)
        {
            Time.Advance(AutoTopUps.Claim);
            await RunAsync();
        }

        Assert.Equal((1, 10_000L, Money.Parse("101.00")), (Stripe.Books.SucceededPayments, Stripe.Books.NetCents, await PostedAsync()));
        Assert.Empty(await RunAsync());
        Assert.Equal(1L, await ScalarAsync<long>("select count(*) from auto_top_up_attempt"));
    }

    [Fact]
    public async Task An_attempt_whose_process_died_before_or_after_the_charge_is_ended_by_another()
    {
        var card = await OpenWithCardAsync(Acme);
        await GrantAsync(Acme, "1.00");
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        // As a process leaves it that dies with the row written; the next had charged as well, and died before it said so.
        foreach (var charged in (bool[])[false, true])
        {
            await ExecuteAsync(
                $"insert into auto_top_up_attempt (account, number, amount_nanos, payment_method_id, begun_at, claimed_until) "
                    + $"values ('acme', {(charged ? 2 : 1)}, {Plan.Amount.Nanos}, '{card}', '{Time.GetUtcNow():O}', '{Time.GetUtcNow():O}')");
            if (charged) Assert.IsType<TopUpResult.Credited>(await TopUps.ChargeAsync(Acme, Plan.Amount, card, "auto/2", Cancellation, ChargeMode.OffSession));
            Assert.Equal(AutoTopUpOutcome.Succeeded, Assert.Single(await RunAsync()).Outcome);
        }

        Assert.Equal((2, Money.Parse("201.00")), (Stripe.Books.SucceededPayments, await PostedAsync()));
    }

    [Fact]
    public async Task Caps_are_of_the_accounts_own_days_and_months()
    {
        await OpenWithCardAsync(Acme);
        await Accounts.DeclareAsync(Acme, new AccountPolicy("Acme", null, null, "Europe/Berlin"), Cancellation);
        await Auto.SaveAsync(Acme, Plan with { MonthlyCap = Money.Parse("700.00") }, Cancellation);
        // The day of 23 hours: clocks go forward at 01:00 UTC, and the day ends at 22:00 UTC instead of 23:00.
        Time.SetUtcNow(new(2026, 3, 28, 23, 30, 0, TimeSpan.Zero));
        Assert.Equal(3, await TopUpsUntilIdleAsync());
        Assert.Equal(AutoTopUpState.DailyCapReached, Assert.IsType<AutoTopUpVerdict.Idle>((await ReadAsync()).Verdict).State);
        Time.SetUtcNow(new(2026, 3, 29, 21, 59, 59, TimeSpan.Zero));
        Assert.Equal(0, await TopUpsUntilIdleAsync());
        Time.SetUtcNow(new(2026, 3, 29, 22, 0, 0, TimeSpan.Zero));
        Assert.Equal(3, await TopUpsUntilIdleAsync());

        Time.SetUtcNow(new(2026, 3, 30, 22, 0, 0, TimeSpan.Zero));
        Assert.Equal(1, await TopUpsUntilIdleAsync());
        Assert.Equal(AutoTopUpState.MonthlyCapReached, Assert.IsType<AutoTopUpVerdict.Idle>((await ReadAsync()).Verdict).State);
        Time.SetUtcNow(new(2026, 3, 31, 22, 0, 0, TimeSpan.Zero));
        Assert.Equal(3, await TopUpsUntilIdleAsync());
        Assert.Equal((10, Money.Parse("300.00")), (Stripe.Books.SucceededPayments, (await ReadAsync()).Settings.ChargedThisMonth));
    }

    [Fact]
    public async Task One_account_that_cannot_be_decided_on_keeps_nobody_elses_money_away()
    {
        await OpenWithCardAsync(Acme);
        await OpenWithCardAsync(Beta);
        await Auto.SaveAsync(Acme, Plan, Cancellation);
        await Auto.SaveAsync(Beta, Plan, Cancellation);
        // What is stored of one account cannot be decided on.
        await ExecuteAsync(
            """
            update account set time_zone = 'no zone!' where id = 'acme';
            insert into auto_top_up_attempt (account, number, amount_nanos, payment_method_id, begun_at, claimed_until, ended_at, outcome)
            values ('acme', 1, 1, 'pm', now(), now(), now(), 'Refused')
            """);
        var round = await Auto.RunAsync(Cancellation);
        Assert.Equal((1, 1), (round.Failures.Count, round.Results.Count));
        Assert.Equal((Money.Zero, Plan.Amount), (await PostedAsync(), await PostedAsync(Beta)));
    }

    private async Task<IReadOnlyList<AutoTopUpResult>> RunAsync()
    {
        var round = await Auto.RunAsync(Cancellation);
        Assert.Empty(round.Failures);
        return round.Results;
    }

    private async Task<(AutoTopUp Settings, AutoTopUpVerdict Verdict)> ReadAsync() => (await Auto.ReadAsync(Acme, Cancellation))!.Value;

    /// <summary>Everything is spent again after each.</summary>
    private async Task<int> TopUpsUntilIdleAsync()
    {
        for (var count = 0; ; count++)
        {
            if ((await RunAsync()).Count == 0) return count;
            await SpendToAsync("0.00");
        }
    }

    private async Task SpendToAsync(string dollars)
    {
        var spent = await PostedAsync() - Money.Parse(dollars);
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(
            Movements.Adjustment(Acme, -spent, Guid.NewGuid().ToString(), "tests", "spent"), Cancellation));
    }
}
