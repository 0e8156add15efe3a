using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

public sealed class HoldsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
    }

    [Fact]
    public async Task Fifty_starts_at_once_against_money_for_exactly_ten_are_exactly_ten()
    {
        await OpenAsync(Acme, "100.00");
        var verdicts = await Task.WhenAll(
            Enumerable.Range(0, 50).Select(_ => Task.Run(() => Holds.PlaceAsync(Ask(NewDeployment(), 4), Policy, T0, Cancellation))));
        Assert.Equal(10, verdicts.OfType<Verdict.Admit>().Count());
        Assert.Equal(40, verdicts.OfType<Verdict.Refuse>().Count(refusal => refusal.Reason == RefusalReason.InsufficientBalance));
        Assert.Equal((Money.Parse("100.00"), Money.Zero), ((await StandingAsync()).Held(T0), (await StandingAsync()).Available(T0)));
    }

    [Fact]
    public async Task Money_for_exactly_ten_starts_exactly_ten_however_long_the_admissions_take()
    {
        await OpenAsync(Acme, "100.00");
        var started = 0;
        for (var i = 0; i < 14; i++)
        {
            var at = T0.AddSeconds(i * 61);
            var (deployment, pod) = (NewDeployment(), NewPod());
            if (await Holds.PlaceAsync(Ask(deployment, 4), Policy, at, Cancellation) is Verdict.Admit)
            {
                started++;
                await Runs.OpenAsync(Start(deployment, pod, 4, at), Cancellation);
            }

            if (i % 3 == 0) await Meter.SettleAsync(Acme, at, Cancellation);
        }

        Assert.Equal(10, started);
    }

    [Fact]
    public async Task A_hold_that_is_old_and_pays_for_nothing_is_counted_until_something_runs_on_it()
    {
        await OpenAsync(Acme, "100.00");
        await RunAsync(gpus: 1, T0);
        var idle = NewDeployment();
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(idle, 1), Policy, T0, Cancellation));
        Assert.Equal(0, await Holds.CountIdleAsync(T0, Cancellation));
        Assert.Equal(1, await Holds.CountIdleAsync(T0.AddSeconds(1), Cancellation));

        var pod = NewPod();
        await Runs.OpenAsync(Start(idle, pod, 1, T0), Cancellation);
        Assert.Equal(0, await Holds.CountIdleAsync(T0.AddSeconds(1), Cancellation));
        await Runs.CloseAsync(pod, T0.AddMinutes(1), Policy, Cancellation);
        Assert.Equal(1, await Holds.CountIdleAsync(T0.AddSeconds(1), Cancellation));
    }

    [Fact]
    public async Task Placing_again_changes_nothing_and_growing_holds_the_difference()
    {
        await OpenAsync(Acme, "30.00");
        var deployment = NewDeployment();
        for (var i = 0; i < 3; i++) Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 4), Policy, T0, Cancellation));
        Assert.Equal(Money.Parse("20.00"), (await StandingAsync()).Available(T0));

        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 8), Policy, T0, Cancellation));
        Assert.Equal(Money.Parse("10.00"), (await StandingAsync()).Available(T0));
        Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(Ask(deployment, 13), Policy, T0, Cancellation));
        Assert.Equal(8, Assert.Single((await StandingAsync()).Holds).Gpus);

        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 2), Policy, T0, Cancellation));
        Assert.Equal(Money.Parse("25.00"), (await StandingAsync()).Available(T0));
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 0), Policy, T0, Cancellation));
        Assert.Equal(Money.Parse("30.00"), (await StandingAsync()).Available(T0));

        await Holds.ReleaseAsync(deployment, Cancellation);
        await Holds.ReleaseAsync(deployment, Cancellation);
        Assert.Empty((await StandingAsync()).Holds);
    }

    /// <summary>The stop rule alone keeps a deployment from holding less: it starts nothing.</summary>
    [Fact]
    public async Task Less_is_held_when_nothing_could_start_anew_and_more_is_not()
    {
        await OpenAsync(Acme, "30.00");
        var deployment = NewDeployment();
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 4), Policy, T0, Cancellation));
        await Cards.DetachAsync(Acme, "pm_card_visa", Cancellation);
        Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(Ask(deployment, 5), Policy, T0, Cancellation));
        Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(Ask(NewDeployment(), 1), Policy, T0, Cancellation));
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 3), Policy, T0, Cancellation));
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 2) with { PerGpuHour = null }, Policy, T0, Cancellation));
        Assert.Equal((2, Money.Parse("5.00")), (Assert.Single((await StandingAsync()).Holds).Gpus, (await StandingAsync()).Held(T0)));

        var afterGrace = await Holds.PlaceAsync(Ask(deployment, 1), Policy, T0 + Policy.CardGracePeriod, Cancellation);
        Assert.Equal(RefusalReason.NoValidCard, Assert.IsType<Verdict.Refuse>(afterGrace).Reason);
    }

    [Fact]
    public async Task A_settlement_draws_the_hold_and_leaves_what_is_available_as_it_was()
    {
        await OpenAsync(Acme, "100.00");
        var (deployment, _) = await RunAsync(4, T0);
        var before = (await StandingAsync()).Available(T0.AddMinutes(30));
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        var standing = await StandingAsync();
        Assert.Equal((Money.Parse("90.00"), before), (before, standing.Available(T0.AddMinutes(30))));
        Assert.Equal(Money.Parse("5.00"), standing.Held(deployment, T0.AddMinutes(30)));
        await Meter.SettleAsync(Acme, T0.AddMinutes(90), Cancellation);
        Assert.Equal(Money.Zero, Assert.Single((await StandingAsync()).Holds).Remaining);
    }

    [Fact]
    public async Task Refusals_place_no_hold()
    {
        await DeclareAsync(Acme);
        async Task<RefusalReason> Reason(LaunchRequest request)
            => Assert.IsType<Verdict.Refuse>(await Holds.PlaceAsync(request, Policy, T0, Cancellation)).Reason;
        Assert.Equal(RefusalReason.AccountMissing, await Reason(Ask(NewDeployment(), 1) with { Account = null }));
        Assert.Equal(RefusalReason.AccountMissing, await Reason(Ask(NewDeployment(), 1, account: new("nobody"))));
        Assert.Equal(RefusalReason.NoValidCard, await Reason(Ask(NewDeployment(), 1)));
        await Cards.AttachAsync(Acme, "pm_card_visa", Cancellation);
        Assert.Equal(RefusalReason.InsufficientBalance, await Reason(Ask(NewDeployment(), 1)));
        Assert.Empty((await StandingAsync()).Holds);
    }

    [Fact]
    public async Task A_hold_follows_a_deployment_that_moves_to_another_account()
    {
        await OpenAsync(Acme, "10.00");
        await OpenAsync(new("beta"), "10.00");
        var deployment = NewDeployment();
        await Holds.PlaceAsync(Ask(deployment, 4), Policy, T0, Cancellation);
        Assert.Null((await Accounts.ReadStandingAsync(new("beta"), deployment, Cancellation))!.Hold);
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, 4, account: new("beta")), Policy, T0, Cancellation));
        Assert.Equal((Money.Parse("10.00"), Money.Zero),
            ((await StandingAsync()).Available(T0), (await StandingAsync(new("beta"))).Available(T0)));
    }

    [Fact]
    public async Task Starts_suspensions_settlements_and_ends_at_once_keep_the_books()
    {
        await OpenAsync(Acme, "40.00");
        var pods = new System.Collections.Concurrent.ConcurrentBag<PodId>();
        await Parallel.ForEachAsync(
            Enumerable.Range(0, 120), new ParallelOptions { MaxDegreeOfParallelism = 16, CancellationToken = Cancellation },
            async (i, cancellation) =>
        {
            var at = T0.AddSeconds(i * 10);
            switch (i % 4)
            {
                case 0:
                    var (deployment, pod) = (NewDeployment(), NewPod());
                    if (await Holds.PlaceAsync(Ask(deployment, 1), Policy, at, cancellation) is Verdict.Admit)
                    {
                        await Runs.OpenAsync(Start(deployment, pod, 1, at), cancellation);
                        pods.Add(pod);
                    }

                    break;
                case 1:
                    await Meter.SettleAsync(Acme, at, cancellation);
                    break;
                case 2:
                    if (pods.TryTake(out var ended)) await Runs.CloseAsync(ended, at, cancellation);
                    break;
                default:
                    await Meter.SuspendIfExhaustedAsync(Acme, Policy, at, cancellation);
                    break;
            }
        });
        Assert.True(await PostedAsync() >= Money.Zero);
    }
}
