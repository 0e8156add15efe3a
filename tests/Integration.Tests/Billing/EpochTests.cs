using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Only the newest leader writes. An older one that does not know it yet is refused, whatever it tries.</summary>
public sealed class EpochTests(PostgresFixture postgres) : BillingTest(postgres)
{
    /// <summary>What an operator has, in an epoch of its own.</summary>
    private sealed record Operator(
        OperatorEpoch Epoch, Accounts Accounts, Holds Holds, Meter Meter, Prices Prices, RunIntervals Runs, GpuFaults Faults)
    {
        public static Operator On(NpgsqlDataSource database)
        {
            var epoch = new OperatorEpoch(database);
            return new(
                epoch, new(database, epoch), new(database, epoch), new(database, epoch), new(database, epoch), new(database, epoch),
                new(database, epoch));
        }
    }

    [Fact]
    public async Task An_operator_whose_epoch_is_over_is_refused_whatever_it_writes_and_the_next_one_goes_on()
    {
        await PublishAsync(T0, (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (first, second) = (Operator.On(Database), Operator.On(Database));
        Assert.Equal(1, await first.Epoch.TakeAsync("first", Cancellation));
        var (deployment, pod) = (NewDeployment(), NewPod());
        Assert.IsType<Verdict.Admit>(await first.Holds.PlaceAsync(Ask(deployment, 1), Policy, T0, Cancellation));
        Assert.True(await first.Runs.OpenAsync(Start(deployment, pod, 1, T0), Cancellation));
        Assert.Equal(1, (await first.Meter.SettleAsync(Acme, T0.AddMinutes(1), Cancellation)).Windows);

        Assert.Equal([pod], await first.Runs.RecordGpusAsync([new(pod, ["GPU-1"])], Cancellation));
        Assert.Equal(2, await second.Epoch.TakeAsync("second", Cancellation));
        var before = await DumpAsync();
        Func<Task>[] writes =
        [
            () => first.Holds.PlaceAsync(Ask(NewDeployment(), 1), Policy, T0, Cancellation),
            () => first.Holds.ReleaseAsync(deployment, Cancellation),
            () => first.Runs.OpenAsync(Start(deployment, NewPod(), 1, T0), Cancellation),
            () => first.Runs.RecordGpusAsync([new(pod, ["GPU-2"])], Cancellation),
            () => first.Faults.ApplyAsync([Lost("GPU-1", T0, T0.AddMinutes(2))], Policy, T0.AddMinutes(2), Cancellation),
            () => first.Runs.CloseAsync(pod, T0.AddMinutes(2), Cancellation),
            () => first.Meter.SettleAsync(Acme, T0.AddMinutes(2), Cancellation),
            () => first.Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddYears(1), Cancellation),
            () => first.Meter.SuspendAsync(deployment, T0.AddMinutes(2), Cancellation),
            () => first.Prices.PublishAsync("default", new Dictionary<GpuProduct, Money> { [H100] = Money.Parse("9.00") }, [], T0.AddMinutes(2), Cancellation),
            () => first.Accounts.DeclareAsync(Acme, new("Renamed", null, null, "UTC"), Cancellation),
        ];
        foreach (var write in writes)
        {
            var refused = await Assert.ThrowsAnyAsync<PostgresException>(write);
            Assert.True(OperatorEpoch.IsOver(refused), refused.Message);
            Assert.False(LedgerAvailability.IsUnavailable(refused));
            Assert.StartsWith("the operator of epoch 1 may write no more: second took epoch 2 at ", refused.MessageText, StringComparison.Ordinal);
        }

        Assert.Equal(before, await DumpAsync());
        Assert.Equal(1, (await second.Meter.SettleAsync(Acme, T0.AddMinutes(2), Cancellation)).Windows);
        Assert.True(await second.Runs.CloseAsync(pod, T0.AddMinutes(3), Cancellation));
        await second.Holds.ReleaseAsync(deployment, Cancellation);
        // What has no epoch, such as the Web API, is not asked.
        await GrantAsync(Acme, "1.00");
    }

    [Fact]
    public async Task Until_an_epoch_is_taken_the_ledger_counts_as_unavailable_and_nothing_is_written()
    {
        await OpenAsync(Acme, "100.00");
        var operatorOf = Operator.On(Database);
        var fault = await Assert.ThrowsAsync<EpochNotTakenException>(() => operatorOf.Holds.PlaceAsync(Ask(NewDeployment(), 1), Policy, T0, Cancellation));
        Assert.True(LedgerAvailability.IsUnavailable(fault));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from credit_hold"));
    }

    /// <summary>
    /// An old leader in the middle of a transaction does not keep the next one from leading, nor from any account but the one it has
    /// locked; and that one not for longer than a lease.
    /// </summary>
    [Fact]
    public async Task A_leader_that_is_paused_within_a_transaction_holds_up_its_own_account_only_and_not_for_longer_than_a_lease()
    {
        var other = new AccountId("other");
        await PublishAsync(T0, (H100, "2.50"));
        foreach (var account in (AccountId[])[Acme, other])
        {
            await OpenAsync(account, "100.00");
            await RunAsync(1, T0, account);
        }

        var second = Operator.On(Database);
        await second.Epoch.TakeAsync("first", Cancellation);
        await using var paused = await Database.OpenConnectionAsync(Cancellation);
        await using var transaction = await paused.BeginTransactionAsync(Cancellation);
        await using (var locking = new NpgsqlCommand("select lock_ledger_accounts('{customer:acme}'), check_operator_epoch(1)", paused))
        {
            await locking.ExecuteNonQueryAsync(Cancellation);
        }

        Assert.Equal(2, await second.Epoch.TakeAsync("second", Cancellation));
        Assert.Equal(1, (await second.Meter.SettleAsync(other, T0.AddMinutes(1), Cancellation)).Windows);
        Assert.Equal(1, (await second.Meter.SettleAsync(Acme, T0.AddMinutes(1), Cancellation)).Windows);

        // The paused one finds its transaction ended, which is an outage to it and no defect.
        await using var late = new NpgsqlCommand("delete from credit_hold", paused);
        var ended = await Assert.ThrowsAnyAsync<NpgsqlException>(() => late.ExecuteNonQueryAsync(Cancellation));
        Assert.True(LedgerAvailability.IsUnavailable(ended), ended.Message);
        Assert.Equal(2L, await ScalarAsync<long>("select count(*) from credit_hold"));
    }

    /// <summary>Two operators that take turns at once, each beginning anew when it is refused: every window is charged once.</summary>
    [Fact]
    public async Task Operators_that_take_the_epoch_from_each_other_while_they_settle_charge_every_window_once()
    {
        await PublishAsync(T0, (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        await RunAsync(2, T0);
        var end = T0.AddMinutes(40);
        async Task SettleAsync(string name)
        {
            var one = Operator.On(Database);
            await one.Epoch.TakeAsync(name, Cancellation);
            for (var minute = 1; minute <= 40; minute++)
            {
                try
                {
                    await one.Meter.SettleAsync(Acme, T0.AddMinutes(minute), Cancellation);
                }
                catch (PostgresException refused) when (OperatorEpoch.IsOver(refused))
                {
                    one = Operator.On(Database);
                    await one.Epoch.TakeAsync(name, Cancellation);
                    minute--;
                }
            }
        }

        await Task.WhenAll(SettleAsync("first"), SettleAsync("second"), SettleAsync("third"));
        var due = Rating.Due(end - T0, Money.Parse("2.50"), 2);
        Assert.Equal(Money.Parse("100.00") - due, await PostedAsync());
        Assert.True(await ScalarAsync<long>("select epoch from operator_epoch") >= 3);
    }

    private async Task<string> DumpAsync() => await ScalarAsync<string>(Books.Dump);
}
