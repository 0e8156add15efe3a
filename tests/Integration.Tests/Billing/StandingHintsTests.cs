using System.Collections.Concurrent;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>A notification goes out after the commit of what it tells of, never with it: a commit that notifies lets no other share its
/// flush.</summary>
public sealed class StandingHintsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    [Fact]
    public async Task Whatever_changes_a_standing_is_told_and_what_changes_nothing_is_not()
    {
        using var listening = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var heard = new BlockingCollection<string>();
        await using var listener = await Database.OpenConnectionAsync(Cancellation);
        listener.Notification += (_, notification) => heard.Add(notification.Payload);
        await using (var listen = new NpgsqlCommand($"listen {StandingChannel.Name}", listener)) await listen.ExecuteNonQueryAsync(Cancellation);
        var waiting = Task.Run(async () =>
        {
            while (true) await listener.WaitAsync(listening.Token);
        }, Cancellation);

        async Task TellsAsync(Func<Task> change)
        {
            await change();
            Assert.True(heard.TryTake(out var account, TimeSpan.FromSeconds(60)), "nobody was told");
            Assert.Equal("acme", account);
        }

        var (deployment, pod) = (NewDeployment(), NewPod());
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await TellsAsync(() => DeclareAsync(Acme));
        await TellsAsync(() => Cards.AttachAsync(Acme, "pm_card_visa", Cancellation));
        await TellsAsync(() => GrantAsync(Acme, "10.00"));
        await TellsAsync(() => Ledger.PostManyAsync([Movements.TopUp(Acme, new(1), "sandbox", "pi_1", "pm")], Cancellation));
        await TellsAsync(() => TopUps.ChargeAsync(Acme, Money.Parse("5.00"), "pm_card_visa", "k", Cancellation));
        await TellsAsync(() => Holds.PlaceAsync(Ask(deployment, 1), Policy, T0, Cancellation));
        await TellsAsync(() => Runs.OpenAsync(Start(deployment, pod, 1, T0), Cancellation));
        await TellsAsync(() => PublishAsync(T0.AddMinutes(1), (H100, "3.00")));
        await Runs.RecordGpusAsync([new(pod, ["GPU-1"])], Cancellation);
        await TellsAsync(() => Faults.ApplyAsync([Lost("GPU-1", T0.AddSeconds(90), T0.AddMinutes(2))], Policy, T0.AddMinutes(2), Cancellation));
        await TellsAsync(() => Meter.SuspendAsync(deployment, T0.AddMinutes(2), Cancellation));
        await TellsAsync(() => Runs.CloseAsync(pod, T0.AddMinutes(3), Cancellation));
        var (other, _) = (await RunAsync(1, T0.AddMinutes(4)), heard.Take(Cancellation));
        // The hold and the run may have been told of together.
        while (heard.TryTake(out _, TimeSpan.FromMilliseconds(200))) { }
        await TellsAsync(() => Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddDays(30), Cancellation));
        await TellsAsync(() => Holds.PlaceAsync(Ask(other.Deployment, 0), Policy, T0.AddDays(30), Cancellation));
        await TellsAsync(() => Holds.ReleaseAsync(other.Deployment, Cancellation));
        await TellsAsync(() => Cards.DetachAsync(Acme, "pm_card_visa", Cancellation));

        // Each of these is what a resync does to an account that is in order; a hint would start the next one.
        await DeclareAsync(Acme);
        await Meter.SettleAsync(Acme, T0.AddDays(31), Cancellation);
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddDays(31), Cancellation);
        await Holds.ReleaseAsync(deployment, Cancellation);
        await Runs.CloseAsync(pod, T0.AddDays(31), Cancellation);
        await Runs.RecordGpusAsync([new(pod, ["GPU-1"])], Cancellation);
        await Faults.ApplyAsync([Lost("GPU-1", T0.AddSeconds(90), T0.AddMinutes(2))], Policy, T0.AddDays(31), Cancellation);
        await Cards.DetachAsync(Acme, "pm_card_visa", Cancellation);
        await TellsAsync(() => GrantAsync(Acme, "1.00"));
        Assert.Empty(heard);

        await listening.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
    }
}
