using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The webhook is advice; the reconciler is the law.</summary>
public sealed class RefusalTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task What_the_webhook_did_not_see_the_reconciler_refuses_in_the_same_words_and_starts_once_money_comes()
    {
        var poor = await OpenTeamAsync("15.00");
        var cardless = await OpenTeamAsync("1000.00", card: false);
        var told = await RefusalOfAsync(Deployment(poor, "train"), dryRun: true);
        await Installation.StopOperatorAsync();
        try
        {
            // Nobody answers the webhook now, and its failure policy lets everything pass.
            await CreateAsync(Deployment(poor, "train"));
            await CreateAsync(Deployment(cardless, "waits"));
        }
        finally
        {
            await Installation.StartOperatorAsync(Ended);
        }

        var refused = await SeeAsync(poor, "train", seen => Condition(seen, ConditionTypes.Ready)?.Reason == "InsufficientBalance");
        Assert.Equal(("False", "False", "True"), (Status(refused, ConditionTypes.Ready), Status(refused, ConditionTypes.BillingAuthorized),
            Status(refused, ConditionTypes.Stalled)));
        var message = Condition(refused, ConditionTypes.Ready)!.Message;
        Assert.EndsWith(message, told, StringComparison.Ordinal);
        Assert.All(
            (string[])[ConditionTypes.BillingAuthorized, ConditionTypes.Stalled, ConditionTypes.Suspended],
            type => Assert.Equal(("InsufficientBalance", message), (Condition(refused, type)!.Reason, Condition(refused, type)!.Message)));
        Assert.Null(await ChildAsync(poor, "train"));
        Assert.Equal(-1, (await HoldOfAsync(refused)).Nanos);
        await SeeAsync(cardless, "waits", seen => Condition(seen, ConditionTypes.Ready)?.Reason == "NoValidCard");
        Assert.Null(await ChildAsync(cardless, "waits"));

        await GrantAsync(poor.Account, "100.00");
        var running = await UntilRunningAsync(poor, "train");
        Assert.Equal(("True", "False", "False"), (Status(running, ConditionTypes.BillingAuthorized),
            Status(running, ConditionTypes.Suspended), Status(running, ConditionTypes.Stalled)));
        await Cards.AttachAsync(cardless.Account, "pm_card_amex", Ended);
        await UntilRunningAsync(cardless, "waits");
    }

    [Fact]
    public async Task Fifty_at_once_against_money_for_ten_are_ten_that_run_and_forty_that_wait_and_stay_so()
    {
        const int asked = 50, paid = 10;
        // Half a hold more than ten: an eleventh must not squeeze in.
        var team = await OpenTeamAsync("210.00");
        // The webhook lets pass whom it still sees money for, whoever else was told so: the reconciler decides under the lock.
        var denied = (await Task.WhenAll(
            Enumerable.Range(0, asked).Select(i => RefusalOfAsync(Deployment(team, $"job-{i}"))))).OfType<string>().ToList();
        Assert.All(denied, refusal => Assert.Contains("is short by $", refusal, StringComparison.Ordinal));

        var seen = await Eventually.SeeAsync(
            () => ListAsync(team), all => all.Count == asked - denied.Count && all.Count(IsReady) == paid
                && all.Count(IsRefused) == all.Count - paid, Describe);
        var running = Names(seen);
        Assert.Equal(paid, await RunsOfAsync(team));
        var waiting = seen.First(IsRefused).Name();
        var writes = new HashSet<string>(StringComparer.Ordinal);
        await UntilSettledAsync(seen.First(IsReady), times: 3, async () =>
        {
            Assert.Equal(running, Names(await ListAsync(team)));
            Assert.Equal(paid, await HoldsAsync(team.Account));
            var standing = await StandingAsync(team.Account);
            var now = TimeProvider.System.GetUtcNow();
            // Money in = money spent + money set aside + the half hold that nobody could use, but for what accrued in between two reads.
            Assert.True(standing.Available(now) >= Money.Zero, $"available {standing.Available(now)}");
            Assert.Equal(Money.Parse("10.00"), standing.Available(now));
            Assert.Equal(standing.Posted, standing.Held(now) + standing.Accrued(now) + standing.Available(now));
        }, poll: async () => writes.Add((await ReadAsync(team, waiting)).Metadata.ResourceVersion));
        // Its message holds a balance that moves all the time, and must not be written all the time: each write is news to every watcher.
        Assert.InRange(writes.Count, 1, 5);
        Assert.Equal(paid, (await PodsAsync(team)).Count);
        Assert.All(await ListAsync(team), each =>
            Assert.True(IsReady(each) || Condition(each, ConditionTypes.Ready)!.Reason == "InsufficientBalance"));
    }

    private Task<int> RunsOfAsync(Team team) => Eventually.SeeAsync(
        async () => (int)await ScalarAsync<long>(
            $"select count(*) from run_interval where account = '{team.Account}' and ended_at is null and charge_until is null"),
        count => count >= 10);

    private static bool IsRefused(GpuDeployment each) =>
        Condition(each, ConditionTypes.Ready) is { Status: "False", Reason: "InsufficientBalance" };

    private static string Names(IEnumerable<GpuDeployment> all) =>
        string.Join(' ', all.Where(IsReady).Select(each => each.Name()).Order(StringComparer.Ordinal));

    private static string Describe(List<GpuDeployment> all)
        => string.Join(", ",
            all.GroupBy(each => Condition(each, ConditionTypes.Ready)?.Reason ?? "none").Select(group => $"{group.Count()} {group.Key}"));

    private static string? Status(GpuDeployment deployment, string type) => Condition(deployment, type)?.Status;
}
