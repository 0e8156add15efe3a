using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Prometheus;
using Tensormesh.Billing;
using Tensormesh.Operator.Proving;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>The ledger's proof as people and alerts see it: the command, and the operator's own prover.</summary>
public sealed class LedgerCommandTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static async Task<(int ExitCode, string Output, string Error)> RunAsync(string? connection, params string[] args)
    {
        var (output, error) = (new StringWriter(), new StringWriter());
        var exitCode = await LedgerCommand.RunAsync(args, connection, output, error, Cancellation);
        return (exitCode, output.ToString(), error.ToString());
    }

    private async Task GivenAsync()
    {
        await DeclareAsync(Acme);
        await GrantAsync(Acme, "5.00");
        await new LedgerSeals(Database, TimeProvider.System).SealAsync(Cancellation);
    }

    private async Task TamperAsync(int more)
    {
        await ExecuteAsync("alter table ledger_transaction disable trigger append_only");
        await ExecuteAsync($"update ledger_transaction set amounts[1] = amounts[1] + {more}");
        await ExecuteAsync("alter table ledger_transaction enable trigger append_only");
    }

    [Fact]
    public async Task Sound_books_are_0_and_the_first_difference_is_1()
    {
        await GivenAsync();
        var (sound, output, _) = await RunAsync(Database.ConnectionString, "ledger", "verify");
        Assert.Equal(0, sound);
        Assert.Contains("Sound: 1 transactions, 1 seals up to position 1 (0 transactions are not sealed yet)", output, StringComparison.Ordinal);

        await TamperAsync(-1);
        var (unsound, told, _) = await RunAsync(Database.ConnectionString, "ledger", "verify");
        await TamperAsync(1);
        Assert.Equal(1, unsound);
        Assert.Contains("NOT SOUND. The first difference: sum of transaction txn_", told, StringComparison.Ordinal);
        Assert.Contains("at position 1: expected 0 nanos, found -1 nanos", told, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Wrong_words_or_no_database_are_2_and_one_that_cannot_be_reached_is_3()
    {
        Assert.Equal(2, (await RunAsync(Database.ConnectionString, "ledger")).ExitCode);
        Assert.Equal(2, (await RunAsync(Database.ConnectionString, "ledger", "repair")).ExitCode);
        Assert.Equal(2, (await RunAsync(null, "ledger", "verify")).ExitCode);
        Assert.Equal(2, (await RunAsync("nonsense", "ledger", "verify")).ExitCode);
        var (away, _, error) = await RunAsync("Host=127.0.0.1;Port=1;Database=none;Username=x;Timeout=2", "ledger", "verify");
        Assert.Equal(3, away);
        Assert.Contains("cannot be reached", error, StringComparison.Ordinal);
        Assert.Equal(3, (await RunAsync(Database.ConnectionString + ";Database=none", "ledger", "verify")).ExitCode);
    }

    [Fact]
    public async Task It_writes_nothing_and_needs_no_right_to()
    {
        await GivenAsync();
        var before = await ScalarAsync<string>(Books.Dump);
        Assert.Equal(0, (await RunAsync(Database.ConnectionString + ";Options=-c default_transaction_read_only=on", "ledger", "verify")).ExitCode);
        Assert.Equal(before, await ScalarAsync<string>(Books.Dump));
    }

    [Fact]
    public async Task The_prover_of_the_operator_seals_and_tells_of_a_difference_for_as_long_as_it_lasts()
    {
        await DeclareAsync(Acme);
        await GrantAsync(Acme, "5.00");
        var metrics = new OperatorMetrics(Metrics.NewCustomRegistry());
        var time = new FakeTimeProvider(T0);
        var prover = new LedgerProver(new(Database, TimeProvider.System), new(Database), metrics, time, NullLogger<LedgerProver>.Instance);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var running = prover.RunAsync(stop.Token);
        await ReachAsync(metrics.LedgerSealedPosition, 1);
        Assert.Equal(0, metrics.LedgerImbalance.Value);

        await TamperAsync(-1);
        await ReachAsync(metrics.LedgerImbalance, 1);
        await TamperAsync(1);
        await ReachAsync(metrics.LedgerImbalance, 0);
        await GrantAsync(Acme, "5.00");
        await ReachAsync(metrics.LedgerSealedPosition, 2);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);

        Task ReachAsync(Gauge gauge, double value) => Eventually.SeeAsync(() =>
        {
            time.Advance(TimeSpan.FromSeconds(30));
            return Task.FromResult(gauge.Value);
        }, seen => seen.Equals(value));
    }
}
