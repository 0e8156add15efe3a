using System.Text.Json;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>The namespace's label, which tenants cannot edit, says who pays; it can move while work runs.</summary>
public sealed class PayerTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task The_former_account_stops_paying_and_the_new_one_is_asked_and_charged()
    {
        var team = await OpenTeamAsync("1000.00");
        var heir = await OpenAccountAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        await UntilSettledAsync(deployment, times: 1);

        await LabelAsync(team, heir.Value);
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Any(run => run.Accrues && run.Account == heir.Value));
        await UntilRunningAsync(team, "train");
        var runs = await RunsAsync(deployment);
        Assert.Equal([team.Account.Value, heir.Value], runs.Select(run => run.Account));
        Assert.False(runs[0].Accrues);
        Assert.Equal("AccountChanged", await ScalarAsync<string>($"select reason from suspension where account = '{team.Account}'"));
        Assert.Equal((0, 1), (await HoldsAsync(team.Account), await HoldsAsync(heir)));
        var left = await PostedAsync(team.Account);
        await UntilSettledAsync(deployment, times: 1);
        Assert.Equal(left, await PostedAsync(team.Account));
        Assert.True(await PostedAsync(heir) < Money.Parse("1000.00"));
    }

    [Fact]
    public async Task An_heir_without_money_stops_the_work_at_the_former_accounts_cost_until_then()
    {
        var team = await OpenTeamAsync("1000.00");
        var heir = await OpenAccountAsync("1.00");
        var deployment = await StartAsync(team, "train");

        await LabelAsync(team, heir.Value);
        var stopped = await SeeStoppedAsync(team, "train", "InsufficientBalance");
        Assert.Contains($"account {heir} is short by $19.00", Condition(stopped, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        Assert.Equal(team.Account.Value, Assert.Single(await RunsAsync(deployment)).Account);
        Assert.Equal(Money.Parse("1.00"), await PostedAsync(heir));

        await LabelAsync(team, team.Account.Value);
        await UntilRunningAsync(team, "train");
    }

    [Fact]
    public async Task A_label_that_is_taken_away_stops_the_work_and_says_what_is_missing()
    {
        var team = await OpenTeamAsync("1000.00");
        await StartAsync(team, "train");
        await LabelAsync(team, null);
        var stopped = await SeeStoppedAsync(team, "train", "AccountMissing");
        Assert.Contains("has no label tensormesh.ai/account", Condition(stopped, ConditionTypes.Ready)!.Message, StringComparison.Ordinal);
        Assert.Equal(0, await HoldsAsync(team.Account));
    }

    [Fact]
    public async Task A_billing_account_that_is_deleted_under_running_work_loses_no_money_and_both_old_and_new_work_are_told()
    {
        var team = await OpenTeamAsync("1000.00");
        var deployment = await StartAsync(team, "train");
        var words = $"BillingAccount {team.Account} was deleted: its balance and history are kept";

        await KubectlAsync("delete", "ba", team.Account.Value);
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.BillingAuthorized) is { Status: "True" } told
            && told.Message.Contains(words, StringComparison.Ordinal));
        await UntilSettledAsync(deployment, times: 1);
        Assert.True(Assert.Single(await RunsAsync(deployment)).Accrues);
        var file = Path.Combine(Cluster.StateDirectory, team.Namespace + ".yaml");
        await File.WriteAllTextAsync(file, KubernetesYaml.Serialize(Deployment(team, "second")), Ended);
        var (exitCode, _, warnings) = await Kubectl.TryRunAsync(Cluster.KubeconfigPath, "apply", "-f", file);
        Assert.Equal(0, exitCode);
        Assert.Contains($"Warning: {words}", warnings, StringComparison.Ordinal);

        // Applied again, it is the same account.
        await Product.Accounts.CreateAsync(
            new BillingAccount { Metadata = new V1ObjectMeta { Name = team.Account.Value }, Spec = new BillingAccountSpec() }, Ended);
        await SeeAsync(team, "train", seen => Condition(seen, ConditionTypes.BillingAuthorized) is { Status: "True" } told
            && !told.Message.Contains(words, StringComparison.Ordinal));
        await UntilSettledAsync(deployment, times: 1);
        Assert.Single(await RunsAsync(deployment));
    }

    private Task<V1Namespace> LabelAsync(Team team, string? account) => Client.CoreV1.PatchNamespaceAsync(
        new V1Patch(JsonSerializer.Serialize(new
        {
            metadata = new
            {
                labels = new Dictionary<string,
            string?>
                { [WellKnown.AccountLabel] = account }
            }
        }), V1Patch.PatchType.MergePatch),
        team.Namespace, cancellationToken: Ended);
}
