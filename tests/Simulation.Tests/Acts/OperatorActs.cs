using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Simulation.Tests;

/// <summary>What becomes of the operator: rounds that come late or twice, an outage of the ledger, death between any two effects, another that takes over.</summary>
internal sealed class OperatorActs(Stage stage, Leadership leadership, DeploymentActs deployments)
{
    private readonly World world = stage.World;

    public IEnumerable<Act> All =>
    [
        new(14, "settle", SettleAsync), new(8, "late round", BeginLateRoundAsync), new(6, "round twice", RoundTwiceAsync), new(6, "ledger away", LoseLedgerAsync),
        new(4, "ledger lost midway", LoseLedgerMidwayAsync), new(14, "die", DieAsync), new(8, "contest", ContestAsync),
    ];

    /// <summary>A tick, or one that comes twice, or for a time that is long over.</summary>
    private Task SettleAsync() => leadership.SurviveAsync(async leader =>
    {
        if (!leader.CaughtUp) await leader.RoundsAsync();
        if (stage.OneIn(5)) stage.Mortality.DieAfter(stage.Chance.Next(0, 3));
        for (var times = stage.Chance.Next(1, 3); times > 0 && !leader.IsOver; times--)
        {
            await leader.SettleAsync(stage.OneIn(4) ? TimeSpan.FromSeconds(stage.Chance.Next(1, 600)) : TimeSpan.Zero);
        }
    });

    private async Task BeginLateRoundAsync()
    {
        var isNew = stage.OneIn(3);
        if (isNew) await deployments.CreateAsync();
        var leader = leadership.Current;
        if (world.Present.Where(deployment => !leader.Late.ContainsKey(deployment)).ToList() is not { Count: > 0 } there) return;
        var deployment = isNew ? there[^1] : stage.Pick(there);
        leader.Late[deployment] = await leader.LookAsync(deployment, timely: false);
        stage.Count("late round");
        // By the time that it is carried out, there may be nothing left to carry it out for.
        if (stage.OneIn(3) && deployment.DeletionAsked is null) deployments.Change(deployment, world.DeleteObject);
    }

    private async Task RoundTwiceAsync()
    {
        if (world.Present.ToList() is not { Count: > 0 } there) return;
        var deployment = stage.Pick(there);
        stage.Count("round twice");
        await leadership.SurviveAsync(async leader =>
        {
            var round = await leader.LookAsync(deployment);
            await leader.FinishAsync(round);
            if (!leader.IsOver) await leader.FinishAsync(round.Again());
        });
    }

    private Task LoseLedgerAsync() => leadership.SurviveAsync(leader => leader.RoundsAsync(ledgerAnswers: false));

    /// <summary>The ledger goes away in the middle of a round: what is left of it is not done, and decided again later.</summary>
    private Task LoseLedgerMidwayAsync() => leadership.SurviveAsync(async leader =>
    {
        foreach (var deployment in world.Present.ToList())
        {
            var round = await leader.LookAsync(deployment);
            for (var left = stage.Chance.Next(0, 4); left > 0 && round.Left.Count > 0; left--) await leader.StepAsync(round);
        }
    });

    /// <summary>The process dies after some effects, whichever they are, and another takes its place.</summary>
    private Task DieAsync() => leadership.SurviveAsync(async leader =>
    {
        stage.Mortality.DieAfter(stage.Chance.Next(0, 8));
        await leader.RoundsAsync();
        if (leader.CaughtUp) await leader.SettleAsync(TimeSpan.Zero);
        await leader.TellOfGpusAsync();
        throw new DiedException();
    });

    /// <summary>Two operators that both believe they lead, with their rounds in any order. Where epochs fence, the older one writes nothing more.</summary>
    private async Task ContestAsync()
    {
        if (world.Kept is not { Count: > 0 } there) return;
        var deployment = stage.Pick(there);
        if (stage.OneIn(2)) deployments.Change(deployment, deployments.Scale);
        var older = leadership.Current;
        var first = await older.LookAsync(deployment, timely: false);
        while (first.Left.Count > 0 && stage.OneIn(3)) await older.StepAsync(first);
        var newer = await OperatorProcess.StartAsync(stage, "newer");
        var second = await newer.LookAsync(deployment, timely: false);
        while (first.Left.Count + second.Left.Count > 0)
        {
            if (second.Left.Count == 0 || (first.Left.Count > 0 && stage.OneIn(2))) await StepOvertakenAsync(older, first);
            else await newer.StepAsync(second);
        }

        stage.Count("contest");
        if (stage.Fenced || stage.OneIn(2)) await leadership.HandOverAsync(newer);
        else await newer.DisposeAsync();
        if (leadership.Current.IsOver) await leadership.ReplaceAsync();
    }

    private async Task StepOvertakenAsync(OperatorProcess older, Round round)
    {
        var before = stage.Auditor.Last;
        await older.StepAsync(round);
        var after = stage.Auditor.Last;
        if (stage.Fenced && !ReferenceEquals(before, after) && !after.SameAs(before)) throw new FoundException("an operator that was overtaken wrote to the ledger");
    }
}
