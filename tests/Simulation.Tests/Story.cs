using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>How a story ended.</summary>
/// <param name="Fault">Null when nothing was found.</param>
internal sealed record StoryEnd(int Seed, int Steps, string Trace, IReadOnlyDictionary<string, int> Tally, Exception? Fault)
{
    /// <summary>What a person needs to see it again.</summary>
    public string Tell() => $"{Seeds.Variable}={Seed}, step {Steps}: {Fault!.Message}\n\n{Trace}\n{Fault}";
}

/// <summary>
/// One seed's story: customers, prices, machines and operators do what the seed draws for them, one step after the other; then everything is brought to
/// its end. The auditor looks at the books after every effect.
/// </summary>
internal sealed class Story
{
    private const int FewestSteps = 15, MostSteps = 45;
    /// <summary>Rounds in which nothing else happens, until a cluster is as it should be.</summary>
    private const int MostRounds = 40;

    private readonly Stage stage;
    private readonly World world;
    private readonly PaperBank bank;
    private readonly Leadership leadership;
    private readonly DeploymentActs deployments;
    private readonly MoneyActs money;
    private readonly IReadOnlyList<Act> acts;
    private int steps;

    private Story(Stage stage)
    {
        (this.stage, world, leadership) = (stage, stage.World, new Leadership(stage));
        bank = new PaperBank(stage.Mortality, Stage.MonthOfStories);
        var tokenPrice = new TokenPrice($"model-{stage.Seed}", Money.Parse("20"), Money.Parse("60.000000007"), Money.Parse("5"));
        (deployments, money) = (new(stage, leadership, tokenPrice), new(stage, bank, tokenPrice));
        acts = [.. deployments.All, .. money.All, .. new MachineActs(stage, leadership).All, .. new OperatorActs(stage, leadership, deployments).All];
    }

    public static async Task<StoryEnd> TellAsync(int seed, Npgsql.NpgsqlDataSource database, Flaw flaw, CancellationToken cancellation)
    {
        using var stage = new Stage(seed, database, flaw, cancellation);
        var story = new Story(stage);
        Exception? fault = null;
        try
        {
            await story.BeginAsync();
            for (var left = stage.Chance.Next(FewestSteps, MostSteps); left > 0; left--) await story.StepAsync();
            await story.EndAsync();
        }
        catch (Exception found) when (found is not OperationCanceledException) // The story's own catch: whatever broke, its seed is told.
        {
            fault = found;
        }
        finally
        {
            await story.leadership.DisposeAsync();
        }

        return new StoryEnd(seed, story.steps, stage.Trace, stage.Tally, fault);
    }

    private async Task BeginAsync()
    {
        foreach (var account in stage.Accounts) await money.OpenAsync(account);
        await stage.Auditor.OpenAsync(stage.Cancellation);
        await leadership.ReplaceAsync();
        foreach (var product in stage.Products) await deployments.PublishFirstAsync(product);
        foreach (var account in stage.Accounts) await money.GrantAsync(account);
        for (var first = stage.Chance.Next(1, 3); first > 0; first--) await deployments.CreateAsync();
        await leadership.Current.RoundsAsync();
    }

    /// <summary>One act, and with some luck an operator that looks at what came of it.</summary>
    private async Task StepAsync()
    {
        steps++;
        var drawn = stage.Chance.Next(acts.Sum(each => each.Weight));
        var act = acts.First(each => (drawn -= each.Weight) < 0);
        stage.Tell($"{steps}. {act.Name}");
        await act.Do();
        if (stage.Chance.Next(10) < 6) await leadership.SurviveAsync(leader => leader.RoundsAsync());
        world.RemoveLostNodes();
    }

    /// <summary>Everything comes to its end: each operator's last word, each pod's, each payment's. Then all must have been told exactly.</summary>
    private async Task EndAsync()
    {
        stage.Tell("end");
        await leadership.ReplaceAsync();
        var leader = leadership.Current;
        for (var round = 0; await leader.ChangesAnythingAsync(); round++)
        {
            if (round == MostRounds) throw new FoundException($"still changing after {round} rounds in which nothing else happened");
        }

        foreach (var deployment in world.Kept) world.DeleteObject(deployment);
        for (var round = 0; WhatWaits() is { Length: > 0 } waiting; round++)
        {
            if (round == MostRounds) throw new FoundException($"all was deleted, and {waiting} wait for ever");
            world.AdvanceTo(world.Now.AddSeconds(45));
            await leader.RoundsAsync();
            world.RemoveLostNodes();
        }

        await leader.TellOfGpusAsync();
        await money.FinishAsync();
        world.AdvanceTo(world.Now.AddHours(1));
        await leader.SettleAsync(TimeSpan.Zero);
        Ending.Compare(stage, bank, money);
        foreach (var account in stage.Accounts) stage.Tell($"{account} has {stage.Auditor.Balance(account)} nanos");
    }

    private string WhatWaits() => string.Join(", ",
    [
        .. world.Present.Select(deployment => deployment.Name),
        .. world.Deployments.SelectMany(deployment => deployment.There).Where(pod => pod.HasFinalizer).Select(pod => pod.Name),
        .. stage.Auditor.Last.Holds.Keys.Select(deployment => $"a hold of {deployment}"),
        .. stage.Auditor.Last.Runs.Values.Where(run => run.EndedAt is null).Select(run => $"the run of {run.Pod}"),
    ]);
}
