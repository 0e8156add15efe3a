using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The answer at <c>kubectl apply</c>.</summary>
public sealed class GateTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task A_namespace_without_the_account_label_is_told_whom_to_ask()
    {
        var team = new Team(await CreateNamespaceAsync(), new AccountId("nobody"));
        await AssertDeniedAsync(team, Deployment(team, "train"), "AccountMissing",
            $"namespace {team.Namespace} has no label tensormesh.ai/account");
    }

    [Fact]
    public async Task An_account_that_does_not_exist_is_named()
    {
        var team = new Team(await CreateNamespaceAsync(new Dictionary<string, string> { [WellKnown.AccountLabel] = "ghost" }),
            new AccountId("ghost"));
        await Eventually.SeeAsync(() => RefusalOfAsync(Deployment(team, "train"), dryRun: true), refusal =>
            refusal?.Contains("account ghost", StringComparison.Ordinal) == true);
        await AssertDeniedAsync(team, Deployment(team, "train"), "AccountMissing", "account ghost, which namespace", "does not exist");
    }

    [Fact]
    public async Task Without_a_card_nothing_starts_whatever_the_balance()
    {
        var team = await OpenTeamAsync("1000.00", card: false);
        await AssertDeniedAsync(team, Deployment(team, "train"), "NoValidCard",
            $"account {team.Account} has no valid card on file: add one under Billing > Payment Methods");
    }

    [Fact]
    public async Task An_expired_card_is_named_by_its_last_four_digits()
    {
        var team = await OpenTeamAsync("1000.00");
        // A card that expires on file: none such can be attached.
        await ExecuteAsync($"update payment_method set exp_year = 2020, exp_month = 1 where account = '{team.Account}'");
        await AssertDeniedAsync(team, Deployment(team, "train"), "CardExpired", "Visa ending 4242 expired at the end of 2020-01");
    }

    [Fact]
    public async Task An_insufficient_balance_is_told_with_the_amount_that_is_short()
    {
        var team = await OpenTeamAsync("15.00");
        await AssertDeniedAsync(
            team, Deployment(team, "train"), "InsufficientBalance", $"account {team.Account} is short by $5.00", "balance $15.00",
            "add balance under Billing > Overview");
    }

    [Fact]
    public async Task What_no_node_has_is_told_with_what_the_cluster_has()
    {
        var team = await OpenTeamAsync("1000.00");
        await AssertDeniedAsync(
            team, Deployment(team, "train", change: each => each.Spec.Gpu.Product = "NVIDIA-NONE"), "NoMatchingGpu", "product NVIDIA-NONE",
            $"64 x {Gpu}");
        await AssertDeniedAsync(team, Deployment(team, "train", change: each => each.Spec.Gpu.MinMemory = "500Gi"), "NoMatchingGpu",
            "at least 500Gi each");
    }

    [Fact]
    public async Task A_product_without_a_price_is_not_handed_out()
    {
        var team = await OpenTeamAsync("1000.00");
        await Product.AddNodeAsync(Gpu + "-unpriced");
        await AssertDeniedAsync(
            team, Deployment(team, "train", change: each => each.Spec.Gpu.Product = Gpu + "-unpriced"), "PriceMissing",
            "no PriceBook names a price for it");
    }

    [Fact]
    public async Task An_hourly_rate_above_the_customers_own_limit_is_refused()
    {
        var team = await OpenTeamAsync("1000.00");
        await AssertDeniedAsync(
            team, Deployment(team, "train", replicas: 2, change: each => each.Spec.Budget = new GpuBudget { MaxHourlyRate = "7000" }),
            "HourlyRateAboveBudget", "would pay $7200.00/h", "spec.budget.maxHourlyRate $7000.00");
    }

    [Fact]
    public async Task A_dry_run_is_answered_like_the_real_thing_and_reserves_nothing()
    {
        var team = await OpenTeamAsync(OperatorFixture.HoldOfOne);
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, KubernetesYaml.Serialize(Deployment(team, "train")), Ended);

        Assert.Contains("created (server dry run)", await KubectlAsync("apply", "--dry-run=server", "-f", file), StringComparison.Ordinal);
        Assert.Empty(await ListAsync(team));
        Assert.Equal(0, await HoldsAsync(team.Account));
        Assert.Contains("is short by $20.00", await RefusalOfAsync(Deployment(team, "train", replicas: 2), dryRun: true),
            StringComparison.Ordinal);

        // The same money, asked for twice in a row by dry runs, is still there for the real one.
        Assert.Contains("created", await KubectlAsync("apply", "-f", file), StringComparison.Ordinal);
        File.Delete(file);
        await UntilRunningAsync(team, "train");
    }

    private async Task AssertDeniedAsync(Team team, GpuDeployment deployment, string reason, params string[] words)
    {
        var refusal = await RefusalOfAsync(deployment);
        Assert.NotNull(refusal);
        Assert.Contains("admission webhook \"gate.tensormesh.ai\" denied the request", refusal, StringComparison.Ordinal);
        Assert.All(words, word => Assert.Contains(word, refusal, StringComparison.Ordinal));
        Assert.Contains($"tensormesh_gate_verdicts_total{{asked_by=\"webhook\",verdict=\"{reason}\"}}", await Product.MetricsAsync(),
            StringComparison.Ordinal);
        Assert.Empty(await ListAsync(team));
        Assert.Empty(await PodsAsync(team));
        Assert.Equal(0, await HoldsAsync(team.Account));
    }
}
