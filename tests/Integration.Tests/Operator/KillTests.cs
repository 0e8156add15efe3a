using System.Globalization;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The story of the demo, while the operator is killed again and again. Set TENSORMESH_SEED to repeat the instants of a run.</summary>
public sealed class KillTests(FaultFixture faults) : FaultTest(faults)
{
    private const int Kills = 10;
    private static readonly TimeSpan BetweenStories = TimeSpan.FromSeconds(7);

    /// <summary>What the kubelet measured of one story.</summary>
    private sealed record Told(Team Team, GpuDeployment Deployment, V1Pod First, V1Pod Second, DateTimeOffset FirstEnd, DateTimeOffset SecondEnd);

    [Fact]
    public async Task Ten_kills_at_random_instants_of_the_demos_story_lose_no_charge_and_double_none()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("TENSORMESH_SEED"), NumberStyles.Integer, CultureInfo.InvariantCulture, out var given)
            ? given
            : Random.Shared.Next();
        Console.WriteLine($"{Kills} kills at random instants: TENSORMESH_SEED={seed}");
        Told[] told;
        try
        {
            // Staggered, so that one kill meets each of them in another of its steps.
            var stories = Enumerable.Range(0, 3).Select(number => TellAsync(BetweenStories * number)).ToList();
            await KillAsync(new Random(seed));
            told = await Task.WhenAll(stories);
        }
        finally
        {
            await StartOverAsync();
        }

        foreach (var story in told) await AssertAllIsPaidOnceAndNothingIsLeftAsync(story);
    }

    private async Task KillAsync(Random random)
    {
        for (var kill = 0; kill < Kills; kill++)
        {
            // Some die while they start, most at their work.
            if (random.Next(4) > 0) await Installation.WaitForOperatorAsync(Ended);
            await Task.Delay(TimeSpan.FromMilliseconds(random.Next(4_000)), Ended);
            await Installation.KillOperatorAsync();
            await ForgetLeaseAsync(TestKit.Installation.Namespace);
            await Installation.LaunchOperatorAsync();
        }
    }

    /// <summary>Card, money, apply, run, exhaustion, top-up, resume, delete.</summary>
    private async Task<Told> TellAsync(TimeSpan later)
    {
        await Task.Delay(later, Ended);
        var account = await OpenAccountAsync("0.00", card: false);
        var team = new Team(await CreateNamespaceAsync(new Dictionary<string, string> { [WellKnown.AccountLabel] = account.Value }), account);
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(account, "pm_card_visa", Ended));
        await GrantAsync(account, "20.00");

        // The webhook denies until it has heard of the namespace, and nobody is asked while the operator is dead.
        await Eventually.SeeAsync(() => RefusalOfAsync(Deployment(team, "train")), refusal =>
            refusal is null || refusal.Contains("already exists", StringComparison.Ordinal), refusal => refusal ?? "");
        var first = await PodAsync(team, except: null);
        await KeepInSightAsync(first);
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.Suspended)?.Status == "True");
        var firstEnd = await FinishedAtAsync(first);
        Assert.NotNull((await ClosedRunAsync(first)).ChargeUntil);
        await LetGoAsync(first);

        await GrantAsync(account, "500.00");
        var second = await PodAsync(team, except: first);
        await KeepInSightAsync(second);
        var deployment = await UntilRunningAsync(team, "train");
        await UntilSettledAsync(deployment, times: 1);
        await DeleteAsync(team, "train");
        var secondEnd = await FinishedAtAsync(second);
        await ClosedRunAsync(second);
        await LetGoAsync(second);
        await UntilGoneAsync(team, "train");
        return new(team, deployment, first, second, firstEnd, secondEnd);
    }

    /// <summary>The deployment's only pod other than one that has had its time.</summary>
    private async Task<V1Pod> PodAsync(Team team, V1Pod? except)
        => (await Eventually.SeeAsync(
            async () => (await PodsAsync(team, "train")).Where(pod => pod.Uid() != except?.Uid()).ToList(),
            pods => pods.Count == 1 && pods[0].Status.ContainerStatuses?[0].State.Running is not null,
            pods => $"{pods.Count} pods"))[0];

    private async Task AssertAllIsPaidOnceAndNothingIsLeftAsync(Told story)
    {
        var (team, deployment) = (story.Team, story.Deployment);
        var price = Money.Parse(OperatorFixture.PerHour);
        // Measured by the kubelet, without a look at what the operator wrote: $20 are 20 s, and the pod outlived them.
        var paidUntil = StartedAt(story.First) + TimeSpan.FromSeconds(20);
        Assert.True(story.FirstEnd >= paidUntil, $"ended at {story.FirstEnd:O}, paid until {paidUntil:O}");
        var measured = Rating.Due(paidUntil - StartedAt(story.First), price, 1) + Rating.Due(story.SecondEnd - StartedAt(story.Second), price, 1);
        Assert.Equal(measured, Money.Parse("520.00") - await PostedAsync(team.Account));
        Assert.Equal(-measured.Nanos, (await SumAsync("GpuUsage", $"customer:{team.Account}") + await SumAsync("GpuUsageCorrection", $"customer:{team.Account}")).Nanos);

        Assert.Equal(2, (await RunsAsync(deployment)).Count);
        Assert.All(await RunsAsync(deployment), run => Assert.NotNull(run.EndedAt));
        await SuspensionAsync(team);
        Assert.Equal(0, await HoldsAsync(team.Account));
        Assert.Null(await ChildAsync(team, "train"));
        Assert.Empty(await PodsAsync(team));
    }

    private static DateTimeOffset StartedAt(V1Pod pod)
        => new(DateTime.SpecifyKind(pod.Status.ContainerStatuses[0].State.Running.StartedAt!.Value, DateTimeKind.Utc));
}
