using System.Text.Json;
using System.Text.Json.Nodes;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>A faulty GPU ends the charge of what held it where it was last seen well, and what was charged past that goes back.</summary>
public sealed class GpuFaultsTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly Money PerHour = Money.Parse("2.50");

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
    }

    [Fact]
    public async Task What_was_charged_past_the_last_healthy_observation_goes_back_as_one_movement_with_the_evidence()
    {
        await OpenAsync(Acme, "100.00");
        var (deployment, pod) = await HoldAsync(2, T0, "GPU-1", "GPU-2");
        await Meter.SettleAsync(Acme, T0.AddMinutes(10), Cancellation);
        var fault = Lost("GPU-2", T0.AddMinutes(12), T0.AddSeconds(750));

        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(13), fault));

        var credit = Due(750, 2) - Due(720, 2);
        Assert.Equal(
            new FaultedRun(pod, $"pod-{pod.Value.ToString()[..5]}", deployment, "train", "team-a", Acme, fault, T0.AddMinutes(12), credit), ended);
        Assert.Equal(Money.Parse("100.00") - Due(720, 2), await PostedAsync());
        Assert.Equal(-Due(750, 2), await SumAsync(MovementType.GpuUsage));
        Assert.Equal(credit, await SumAsync(MovementType.GpuFaultCredit));
        Assert.Equal(-credit, await SumAsync(MovementType.GpuFaultCredit, "revenue:gpu"));

        var movement = Assert.Single(await CreditsAsync());
        Assert.Equal(
            "Credit: 2 x NVIDIA-H100-80GB-HBM3, 30 s charged after a GPU was last seen healthy (team-a/train; GPU-2 on gpu-a: Lost)",
            movement.Description);
        var details = JsonNode.Parse(movement.Details)!.AsObject();
        var expected = new JsonObject
        {
            ["deployment"] = deployment.ToString(),
            ["deploymentName"] = "train",
            ["namespace"] = "team-a",
            ["pod"] = pod.ToString(),
            ["podName"] = ended.PodName,
            ["node"] = "gpu-a",
            ["product"] = H100.Name,
            ["gpus"] = 2,
            ["windowStart"] = "2026-03-01T12:12:00.000000Z",
            ["windowEnd"] = "2026-03-01T12:12:30.000000Z",
            ["priceVersion"] = details["priceVersion"]!.GetValue<long>(),
            ["perGpuHourNanos"] = PerHour.Nanos,
            ["gpuUuids"] = new JsonArray("GPU-1", "GPU-2"),
            ["gpu"] = "GPU-2",
            ["reason"] = "Lost",
            ["message"] = fault.Message,
            ["lastHealthyAt"] = "2026-03-01T12:12:00.000000Z",
            ["seenAt"] = "2026-03-01T12:12:30.000000Z",
            ["recoveredAt"] = null,
        };
        Assert.True(JsonNode.DeepEquals(expected, details), details.ToJsonString());
        Assert.Equal(
            $"gpu-fault/{deployment}/{pod}/20260301T121200.000000Z|2026-03-01 12:12:00",
            await ScalarAsync<string>(
                "select idempotency_key || '|' || (effective_at at time zone 'UTC') from ledger_transaction where type = 'GpuFaultCredit'"));
    }

    [Fact]
    public async Task The_run_stays_open_and_free_the_hold_stays_and_the_same_fault_again_changes_nothing()
    {
        await OpenAsync(Acme, "100.00");
        var (deployment, pod) = await HoldAsync(1, T0, "GPU-1");
        var fault = Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13));
        Assert.Single(await ApplyAsync(T0.AddMinutes(14), fault));

        var books = await ScalarAsync<string>(Books.Dump);
        Assert.Empty(await ApplyAsync(T0.AddMinutes(20), fault, fault with { SeenAt = T0.AddMinutes(15) }));
        Assert.Empty(await ApplyAsync(T0.AddMinutes(20), Lost("GPU-1", T0.AddMinutes(14), T0.AddMinutes(15))));
        Assert.Equal(Settlement.Nothing, await Meter.SettleAsync(Acme, T0.AddHours(1), Cancellation));
        Assert.Equal(books, await ScalarAsync<string>(Books.Dump));

        Assert.Equal(
            new OpenRun(pod, deployment, Acme, T0, T0.AddMinutes(12)), Assert.Single(await Runs.ListOpenAsync(deployment, Cancellation)));
        Assert.Equal([deployment], (await StandingAsync()).Holds.Select(hold => hold.Deployment));
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(30), Cancellation));
        Assert.Equal(Money.Parse("100.00") - Due(720), await PostedAsync());
        Assert.Equal(Due(720), (await Accounts.ReadStandingAsync(Acme, deployment, Cancellation))!.SettledCost);
        var spent = (await new Spending(Database).SummaryAsync(Acme, T0.AddHours(1), Cancellation))!.Last24Hours;
        Assert.Equal(Due(720), spent);
    }

    [Fact]
    public async Task The_same_evidence_gives_the_same_bill_whenever_it_is_looked_at()
    {
        // Recovered before anyone looked, ended before anyone looked, settled past it, stopped for another reason: all the same.
        await OpenAsync(Acme, "1000.00");
        var fault = Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13), T0.AddMinutes(20));
        var (atOnce, settled, closed, both, stopped) = (
            await HoldAsync(1, T0, "GPU-1"), await HoldAsync(1, T0, "GPU-1"), await HoldAsync(1, T0, "GPU-1"), await HoldAsync(1, T0, "GPU-1"),
            await HoldAsync(1, T0, "GPU-1"));
        await Runs.CloseAsync(closed.Pod, T0.AddMinutes(40), Cancellation);
        await Meter.SettleAsync(Acme, T0.AddMinutes(45), Cancellation);
        await Runs.CloseAsync(both.Pod, T0.AddMinutes(50), Cancellation);
        await Meter.SuspendAsync(stopped.Deployment, T0.AddMinutes(55), Cancellation);

        var ended = await ApplyAsync(T0.AddHours(1), fault);
        Assert.Equal(5, ended.Count);
        Assert.All(ended, one => Assert.Equal(T0.AddMinutes(12), one.ChargedUntil));
        foreach (var (_, pod) in ((DeploymentId, PodId)[])[atOnce, settled, closed, both, stopped])
        {
            Assert.Equal(Due(720), await ChargedAsync(pod));
        }

        Assert.Empty(await ApplyAsync(T0.AddHours(2), fault));
        Assert.Equal(
            [T0.AddMinutes(40), T0.AddMinutes(50)],
            (await ScalarAsync<DateTime[]>("select array_agg(ended_at order by ended_at) from run_interval where ended_at is not null"))
                .Select(end => new DateTimeOffset(end)));
    }

    [Fact]
    public async Task A_run_that_did_not_hold_the_gpu_while_it_was_faulty_pays_what_it_used()
    {
        await OpenAsync(Acme, "1000.00");
        await HoldAsync(1, T0, "GPU-2");
        var (_, before) = await HoldAsync(1, T0, "GPU-1");
        await Runs.CloseAsync(before, T0.AddMinutes(12), Cancellation);
        await HoldAsync(1, T0.AddMinutes(20), "GPU-1");
        await RunAsync(1, T0);
        var books = await ScalarAsync<string>(Books.Dump);
        // The first ended where the GPU was last seen well, the second began where it was seen well again, the others held no such GPU.
        Assert.Empty(await ApplyAsync(T0.AddHours(1), Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13), T0.AddMinutes(20)), Lost("GPU-3", null, T0)));
        Assert.Empty(await ApplyAsync(T0.AddHours(1)));
        Assert.Equal(books, await ScalarAsync<string>(Books.Dump));
    }

    [Fact]
    public async Task A_run_on_a_gpu_that_is_faulty_from_its_start_costs_nothing()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await HoldAsync(1, T0.AddMinutes(15), "GPU-1");
        await Meter.SettleAsync(Acme, T0.AddMinutes(18), Cancellation);
        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(19), Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13))));
        Assert.Equal((T0.AddMinutes(15), Due(180)), (ended.ChargedUntil, ended.Credited));
        Assert.Equal(Money.Zero, await ChargedAsync(pod));
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(20), Cancellation));
        Assert.Equal(Money.Parse("10.00"), await PostedAsync());
    }

    [Fact]
    public async Task Without_a_healthy_observation_nothing_before_the_fault_was_seen_goes_back()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await HoldAsync(1, T0, "GPU-1");
        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(14), Lost("GPU-1", null, T0.AddMinutes(13))));
        Assert.Equal((T0.AddMinutes(13), Money.Zero), (ended.ChargedUntil, ended.Credited));
        Assert.Equal(Due(780), await ChargedAsync(pod));
        Assert.Empty(await CreditsAsync());
    }

    [Fact]
    public async Task A_clock_that_stepped_back_between_two_observations_is_taken_in_the_customers_favour()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await HoldAsync(1, T0, "GPU-1");
        // The node's clock is ahead of the ledger's as well: what is seen is charged to, whatever the time is here.
        Assert.Single(await ApplyAsync(T0.AddMinutes(9), Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(10))));
        Assert.Equal(Due(600), await ChargedAsync(pod));
    }

    [Fact]
    public async Task A_price_change_between_the_last_healthy_observation_and_the_fault_is_taken_back_with_it()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await HoldAsync(3, T0, "GPU-1", "GPU-2", "GPU-3");
        await PublishAsync(T0.AddSeconds(400.5), (H100, "3.75"));
        await PublishAsync(T0.AddMinutes(14), (H100, "9.00"));
        var fault = Lost("GPU-3", T0.AddMicroseconds(720_000_001), T0.AddMinutes(15));
        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(16), fault));

        var due = Rating.Due(TimeSpan.FromSeconds(400.5), PerHour, 3) + Rating.Due(TimeSpan.FromMicroseconds(319_500_001), Money.Parse("3.75"), 3);
        Assert.Equal(due, await ChargedAsync(pod));
        Assert.Equal(
            Rating.Due(TimeSpan.FromSeconds(439.5), Money.Parse("3.75"), 3) - Rating.Due(TimeSpan.FromMicroseconds(319_500_001), Money.Parse("3.75"), 3)
                + Rating.Due(TimeSpan.FromMinutes(1), Money.Parse("9.00"), 3),
            ended.Credited);
        // Back over one more price.
        Assert.Single(await ApplyAsync(T0.AddMinutes(16), fault with { LastHealthyAt = T0.AddMinutes(2) }));
        Assert.Equal(Due(120, 3), await ChargedAsync(pod));
        Assert.Equal(2, (await CreditsAsync()).Count);
        // A later price has nothing to apply to.
        await PublishAsync(T0.AddMinutes(30), (H100, "1.00"));
        Assert.Equal(Due(120, 3), await ChargedAsync(pod));
    }

    [Fact]
    public async Task Of_several_faults_the_earliest_counts_and_a_later_call_credits_only_what_is_earlier_still()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await HoldAsync(2, T0, "GPU-1", "GPU-2");
        var (late, early) = (Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13)), Lost("GPU-2", T0.AddMinutes(11), T0.AddMinutes(14)));
        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(15), late, early));
        Assert.Equal((early, T0.AddMinutes(11)), (ended.Fault, ended.ChargedUntil));
        Assert.Single(await CreditsAsync());

        Assert.Empty(await ApplyAsync(T0.AddMinutes(15), late));
        ended = Assert.Single(await ApplyAsync(T0.AddMinutes(15), late with { LastHealthyAt = T0.AddMinutes(5) }, early));
        Assert.Equal((T0.AddMinutes(5), Due(660, 2) - Due(300, 2)), (ended.ChargedUntil, ended.Credited));
        Assert.Equal(2, (await CreditsAsync()).Count);
        Assert.Equal(Due(300, 2), await ChargedAsync(pod));
    }

    [Fact]
    public async Task A_run_that_held_a_mig_instance_held_the_faulty_gpu()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await HoldAsync(1, T0, "MIG-b");
        await HoldAsync(1, T0, "MIG-z");
        var fault = Lost("GPU-1", T0.AddMinutes(1), T0.AddMinutes(2)) with { Gpus = ["GPU-1", "MIG-a", "MIG-b"] };
        var ended = Assert.Single(await ApplyAsync(T0.AddMinutes(3), fault));
        Assert.Equal(pod, ended.Pod);
        var details = JsonDocument.Parse(Assert.Single(await CreditsAsync()).Details).RootElement;
        Assert.Equal(("""["MIG-b"]""", "GPU-1"), (details.GetProperty("gpuUuids").GetRawText(), details.GetProperty("gpu").GetString()));
    }

    [Theory]
    [InlineData(5, 5)]
    [InlineData(12, 12)]
    [InlineData(30, 12)]
    public async Task An_end_that_is_reported_after_the_fault_gives_back_what_is_left_to_give_back(int endMinute, int paidMinutes)
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await HoldAsync(1, T0, "GPU-1");
        var fault = Lost("GPU-1", T0.AddMinutes(12), T0.AddMinutes(13));
        await ApplyAsync(T0.AddMinutes(14), fault);
        Assert.True(await Runs.CloseAsync(pod, T0.AddMinutes(endMinute), Cancellation));
        Assert.Equal(Due(60 * paidMinutes), await ChargedAsync(pod));
        Assert.Empty(await ApplyAsync(T0.AddMinutes(14), fault));
        Assert.Equal(Money.Parse("100.00") - Due(60 * paidMinutes), await PostedAsync());
        Assert.Equal(T0.AddMinutes(endMinute), new DateTimeOffset(await ScalarAsync<DateTime>("select ended_at from run_interval")));
    }

    [Fact]
    public async Task A_balance_that_ran_out_before_the_fault_ends_the_charge_where_it_did_and_the_rest_is_written_off()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await HoldAsync(4, T0, "GPU-1");
        // The operator was away: the money ended after an hour, the GPU was well for another half.
        var ended = Assert.Single(await ApplyAsync(T0.AddHours(3), Lost("GPU-1", T0.AddMinutes(90), T0.AddMinutes(91))));
        Assert.Equal((T0.AddHours(1), Money.Zero), (ended.ChargedUntil, ended.Credited));
        Assert.Equal(Money.Zero, await PostedAsync());
        Assert.Equal(Money.Parse("10.00"), await ChargedAsync(pod));
        Assert.Equal(Money.Parse("-5.00"), await SumAsync(MovementType.Uncollected, "expense:uncollected"));
        Assert.Empty(await ApplyAsync(T0.AddHours(3), Lost("GPU-1", T0.AddMinutes(90), T0.AddMinutes(91))));
        Assert.Equal(Money.Zero, (await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(3), Cancellation))!.Uncollected);
    }

    [Fact]
    public async Task A_balance_that_ran_out_between_the_two_observations_is_charged_to_its_end_and_credited_from_the_first()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await HoldAsync(4, T0, "GPU-1");
        var ended = Assert.Single(await ApplyAsync(T0.AddHours(3), Lost("GPU-1", T0.AddMinutes(30), T0.AddMinutes(90))));
        Assert.Equal((T0.AddMinutes(30), Money.Parse("5.00")), (ended.ChargedUntil, ended.Credited));
        Assert.Equal(Money.Parse("5.00"), await ChargedAsync(pod));
        Assert.Equal(Money.Parse("5.00"), await PostedAsync());
        Assert.Equal(Money.Zero, await SumAsync(MovementType.Uncollected, "expense:uncollected"));
    }

    [Fact]
    public async Task What_one_run_gets_back_pays_for_another_that_went_on_longer()
    {
        // Together they cost 10 dollars an hour. The first is free from minute 30 on, which buys the second until minute 90.
        var policy = Policy with { HoldWindow = TimeSpan.FromMinutes(1) };
        await OpenAsync(Acme, "10.00");
        var (_, long1) = await RunAsync(2, T0, policy: policy);
        var (_, short1) = await RunAsync(2, T0, policy: policy);
        await Runs.RecordGpusAsync([new(long1, ["GPU-1"]), new(short1, ["GPU-2"])], Cancellation);
        var ended = await ApplyAsync(
            T0.AddHours(3), Lost("GPU-1", T0.AddMinutes(80), T0.AddMinutes(81)), Lost("GPU-2", T0.AddMinutes(30), T0.AddMinutes(100)));
        Assert.Equal([(short1, T0.AddMinutes(30)), (long1, T0.AddMinutes(80))], ended.Select(one => (one.Pod, one.ChargedUntil)));
        Assert.Equal(Due(1800, 2), await ChargedAsync(short1));
        Assert.Equal(Due(4800, 2), await ChargedAsync(long1));
        Assert.Equal(Money.Zero, await SumAsync(MovementType.Uncollected, "expense:uncollected"));
    }

    [Fact]
    public async Task Calls_settlements_and_ends_at_once_leave_one_credit()
    {
        await OpenAsync(Acme, "1000.00");
        for (var round = 0; round < 8; round++)
        {
            var gpu = $"GPU-{round}";
            var (_, pod) = await HoldAsync(1, T0, gpu);
            var fault = Lost(gpu, T0.AddMinutes(12), T0.AddMinutes(13));
            var calls = Enumerable.Range(0, 4).Select(_ => Task.Run(() => ApplyAsync(T0.AddMinutes(14), fault))).ToList();
            await Task.WhenAll([
                .. calls,
                Task.Run(() => Runs.CloseAsync(pod, T0.AddMinutes(round % 2 == 0 ? 10 : 20), Cancellation)),
                Task.Run(() => Meter.SettleAsync(Acme, T0.AddMinutes(18), Cancellation)),
                Task.Run(() => PublishAsync(T0.AddMinutes(1), (H100, "2.50"))),
            ]);
            await ApplyAsync(T0.AddMinutes(14), fault);
            Assert.Equal(Due(round % 2 == 0 ? 600 : 720), await ChargedAsync(pod));
            Assert.InRange(calls.Sum(call => call.Result.Count), 0, 1);
        }
    }

    [Fact]
    public async Task Random_stories_end_with_charges_that_equal_chargeable_time_by_price_and_runs_that_end_with_their_gpus()
    {
        var random = new Random(20261125);
        for (var story = 0; story < 25; story++)
        {
            var account = new AccountId($"story-{story}");
            await OpenAsync(account, random.Next(3) == 0 ? "12.00" : "500.00");
            var runs = new List<(DeploymentId Deployment, PodId Pod, string Gpu, DateTimeOffset From)>();
            var (faults, suspended) = (new List<GpuFault>(), false);
            var now = T0.AddDays(story);
            for (var step = 0; step < 14; step++)
            {
                now += TimeSpan.FromMicroseconds(random.NextInt64(1, 600_000_000));
                DateTimeOffset Past() => now - TimeSpan.FromMicroseconds(random.NextInt64(0, 1_800_000_000));
                switch (runs.Count == 0 ? 0 : random.Next(8))
                {
                    case 0:
                        var (deployment, pod, gpu) = (NewDeployment(), NewPod(), $"GPU-{story}-{random.Next(3)}");
                        if (await Holds.PlaceAsync(
                            Ask(deployment, 1, account: account), Policy with { HoldWindow = TimeSpan.FromSeconds(1) }, now, Cancellation) is not Verdict.Admit) break;
                        await Runs.OpenAsync(Start(deployment, pod, random.Next(1, 5), now, account), Cancellation);
                        await Runs.RecordGpusAsync([new(pod, [gpu])], Cancellation);
                        runs.Add((deployment, pod, gpu, now));
                        break;
                    case 1:
                        await PublishAsync(now, (H100, $"{random.Next(1, 9)}.{random.Next(10, 99)}"));
                        break;
                    case 2:
                        await Meter.SettleAsync(account, now, Cancellation);
                        break;
                    case 3:
                        await Runs.CloseAsync(runs[random.Next(runs.Count)].Pod, Past(), Policy, Cancellation);
                        break;
                    case 4 when random.Next(3) == 0:
                        suspended |= (await Meter.SuspendAsync(runs[random.Next(runs.Count)].Deployment, now, Cancellation)).Deployments.Count > 0;
                        break;
                    case 5:
                        suspended |= await Meter.SuspendIfExhaustedAsync(account, Policy, now, Cancellation) is not null;
                        break;
                    default:
                        var seen = Past();
                        faults.Add(Lost(
                            $"GPU-{story}-{random.Next(3)}", random.Next(4) == 0 ? null : seen - TimeSpan.FromMicroseconds(random.NextInt64(0, 900_000_000)),
                            seen, random.Next(3) == 0 ? seen.AddMinutes(random.Next(1, 20)) : null));
                        await Faults.ApplyAsync([.. faults.OrderBy(_ => random.Next()).Take(2)], Policy, now, Cancellation);
                        break;
                }
            }

            await Meter.SettleAsync(account, now, Cancellation);
            await Faults.ApplyAsync(faults, Policy, now, Cancellation);
            Assert.Empty(await Faults.ApplyAsync([.. faults.OrderBy(_ => random.Next())], Policy, now, Cancellation));
            foreach (var run in runs)
            {
                Assert.Equal(await DueAsync(run.Pod), await ChargedAsync(run.Pod));
                var settled = new DateTimeOffset(await ScalarAsync<DateTime>($"select settled_until from run_interval where pod = '{run.Pod}'"));
                foreach (var fault in faults.Where(one => one.Gpu == run.Gpu && (one.RecoveredAt is null || run.From < one.RecoveredAt)))
                {
                    Assert.True(settled <= Instants.Later(run.From, fault.LastHealthyAt ?? fault.SeenAt), $"{run} is charged past {fault}: until {settled}");
                }
            }
        }
    }

    [Fact]
    public async Task In_any_order_the_same_happenings_cost_the_same()
    {
        var (random, fewest) = (new Random(7), 0);
        for (var order = 0; order < 20; order++)
        {
            var (account, at) = (new AccountId($"order-{order}"), T0.AddDays(order));
            await PublishAsync(at, (H100, "2.50"));
            await OpenAsync(account, "100.00");
            var (deployment, pod) = await HoldAsync(2, at, account, $"GPU-{order}-1", $"GPU-{order}-2");
            await PublishAsync(at.AddMinutes(8), (H100, "3.33"));
            var earlyEnd = order % 3 == 0;
            Func<Task>[] happenings =
            [
                () => Faults.ApplyAsync([Lost($"GPU-{order}-1", at.AddMinutes(12), at.AddMinutes(14))], Policy, at.AddHours(1), Cancellation),
                () => Faults.ApplyAsync([Lost($"GPU-{order}-2", at.AddMinutes(11), at.AddMinutes(15), at.AddMinutes(16))], Policy, at.AddHours(1), Cancellation),
                () => Runs.CloseAsync(pod, at.AddMinutes(earlyEnd ? 10 : 25), Cancellation),
                () => Meter.SettleAsync(account, at.AddMinutes(10), Cancellation),
                () => Meter.SettleAsync(account, at.AddMinutes(24), Cancellation),
            ];
            foreach (var happens in happenings.OrderBy(_ => random.Next())) await happens();
            var due = Rating.Due(TimeSpan.FromMinutes(8), PerHour, 2) + Rating.Due(TimeSpan.FromMinutes(earlyEnd ? 2 : 3), Money.Parse("3.33"), 2);
            Assert.Equal(due, await ChargedAsync(pod));
            Assert.Equal(Money.Parse("100.00") - due, await PostedAsync(account));
            fewest += earlyEnd ? 1 : 0;
        }

        Assert.Equal(7, fewest);
    }

    [Fact]
    public async Task A_fault_that_names_no_gpu_is_refused()
    {
        var fault = Lost("GPU-1", null, T0);
        foreach (var unsound in (GpuFault[])[fault with { Gpus = [] }, fault with { Gpus = ["GPU-1", ""] }, fault with { Gpu = " " }])
        {
            var refused = await Assert.ThrowsAsync<ArgumentException>(() => ApplyAsync(T0, fault, unsound));
            Assert.StartsWith("a fault of node gpu-a (Lost) names no GPU, or one with an empty UUID", refused.Message, StringComparison.Ordinal);
        }
    }

    private Task<IReadOnlyList<FaultedRun>> ApplyAsync(DateTimeOffset now, params GpuFault[] faults)
        => Faults.ApplyAsync(faults, Policy, now, Cancellation);

    private Task<(DeploymentId Deployment, PodId Pod)> HoldAsync(int count, DateTimeOffset at, params string[] gpus)
        => HoldAsync(count, at, Acme, gpus);

    /// <summary>A run that held these GPUs.</summary>
    private async Task<(DeploymentId Deployment, PodId Pod)> HoldAsync(int count, DateTimeOffset at, AccountId account, params string[] gpus)
    {
        var run = await RunAsync(count, at, account);
        Assert.Equal([run.Pod], await Runs.RecordGpusAsync([new(run.Pod, gpus)], Cancellation));
        return run;
    }

    private static Money Due(double seconds, int gpus = 1) => Rating.Due(TimeSpan.FromSeconds(seconds), PerHour, gpus);

    private async Task<IReadOnlyList<AccountTransaction>> CreditsAsync() =>
        [.. (await Transactions.ListAsync(Acme, null, 1000, Cancellation)).Where(one => one.Type == nameof(MovementType.GpuFaultCredit))];

    /// <summary>What the ledger moved from the customer for one pod.</summary>
    private async Task<Money> ChargedAsync(PodId pod) => new((long)await ScalarAsync<decimal>(
        $"""
        select coalesce(-sum(e.amount_nanos), 0) from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
        join ledger_account a on a.id = e.ledger_account and a.account is not null where t.details ->> 'pod' = '{pod}'
        """));

    /// <summary>What is due for a run's chargeable time, by the prices that it is recorded to have had.</summary>
    private async Task<Money> DueAsync(PodId pod) => new((long)await ScalarAsync<decimal>(
        $"""
        select coalesce(sum(floor(greatest(0, (extract(epoch from least(r.settled_until, g.to_at)) - extract(epoch from g.from_at)) * 1000000)
          * r.gpus * g.per_gpu_hour_nanos / 3600000000)), 0)
        from run_interval r cross join lateral (
          select g.*, coalesce(lead(from_at) over (order by from_at, price_version), 'infinity') as to_at from run_interval_rating g where g.pod = r.pod) g
        where r.pod = '{pod}' and g.from_at <= r.settled_until
        """));
}
