using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Tokens and GPU time draw on one balance, in a real operator.</summary>
public sealed class ServerlessTests(OperatorFixture product) : OperatorTest(product)
{
    private const string Model = "tests/serverless-model";
    private readonly TokenMeter tokens = new(product.Database);

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        var spec = new PriceBookSpec { Serverless = [new() { Model = Model, InputPerMillion = "1.00", OutputPerMillion = "2.00", CachedPerMillion = "0.10" }] };
        var book = new { apiVersion = WellKnown.ApiVersion, kind = PriceBook.KubeKind, metadata = new { name = "serverless-tests" }, spec };
        await Client.CustomObjects.PatchClusterCustomObjectAsync(
            new V1Patch(KubernetesJson.Serialize(book), V1Patch.PatchType.ApplyPatch), WellKnown.Group, WellKnown.Version, PriceBook.PluralName, "serverless-tests",
            fieldManager: "tests", force: true, cancellationToken: Ended);
        await Eventually.SeeAsync(() => new Prices(Product.Database).CurrentTokensAsync(Ended), prices => prices.Any(price => price.Model == Model));
    }

    private async Task UseAsync(AccountId account, string id, long input, long output)
    {
        var receipt = await tokens.IngestAsync(
            [new("/tests", $"{account}-{id}", account, Model, TimeProvider.System.GetUtcNow().AddSeconds(-1), input, 0, output)], Ended);
        Assert.IsType<UsageOutcome.Accepted>(Assert.Single(receipt.Outcomes));
    }

    [Fact]
    public async Task Tokens_that_use_up_the_balance_stop_what_runs_within_seconds_and_a_top_up_pays_them_and_starts_it_again()
    {
        var team = await OpenTeamAsync("500.00");
        // Kubelets report whole seconds: a pod that ended within the second of the suspension would get the rest of that second back.
        var deployment = await StartAsync(team, "train", change: Stubborn(graceSeconds: 3));
        // A little: settled by the operator, and nothing stops.
        await UseAsync(team.Account, "1", 1_000_000, 500_000);
        await Eventually.SeeAsync(() => SumAsync("ServerlessUsage", $"customer:{team.Account}"), sum => sum == Money.Parse("-2.00"), sum => $"{sum}");
        Assert.True(IsReady(await ReadAsync(team, "train")));

        // More than there is: it stops when they were accepted, and what ran before is paid.
        await UseAsync(team.Account, "2", 600_000_000, 0);
        await SeeStoppedAsync(team, "train", "InsufficientBalance");
        var run = Assert.Single(await RunsAsync(deployment));
        var accepted = new DateTimeOffset(await ScalarAsync<DateTime>(
            $"select k.accepted_at from token_balance k join ledger_account a on a.id = k.customer where a.account = '{team.Account}'"));
        Assert.Equal(accepted, run.ChargeUntil);
        Assert.Equal(Rating.Due(accepted - run.StartedAt, run.PerGpuHour, run.Gpus), run.Total);
        Assert.Equal((Money.Zero, 0), (await PostedAsync(team.Account), await HoldsAsync(team.Account)));
        var owed = Money.Parse("2.00") + Money.Parse("600.00") + run.Total - Money.Parse("500.00");
        Assert.Equal(-owed, (await StandingAsync(team.Account)).Funds);

        await GrantAsync(team.Account, "1000.00");
        await UntilRunningAsync(team, "train");
        await Eventually.SeeAsync(() => SumAsync("ServerlessUsage", $"customer:{team.Account}"), sum => sum == Money.Parse("-602.00"), sum => $"{sum}");
        await DeleteAsync(team, "train");
        await UntilGoneAsync(team, "train");
        var metrics = await Product.MetricsAsync();
        Assert.Matches("(?m)^tensormesh_token_posting_seconds_count [1-9]", metrics);
        Assert.Matches("(?m)^tensormesh_tokens_charged_dollars_total [1-9]", metrics);
    }
}
