using System.Globalization;
using System.Net;
using System.Text.RegularExpressions;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>What people and machines read: columns, explanations, waits, Events, metrics and probes.</summary>
public sealed partial class ReadingTests(OperatorFixture product) : OperatorTest(product)
{
    [Fact]
    public async Task Kubectl_shows_an_accounts_balance_what_is_held_and_burnt_how_long_it_lasts_and_its_card()
    {
        var team = await OpenTeamAsync("100.00", lowBalanceAlert: "99.50");
        await StartAsync(team, "train");
        // A standing that moves is shown anew with every change of the ledger; settlements are not among them, a hold and a start are.
        var table = await Eventually.SeeAsync(
            () => KubectlAsync("get", "ba", team.Account.Value), text => Cells(text)["BURN/H"] == "3600.00", text => text);
        var row = Cells(table);
        Assert.Equal(["NAME", "BALANCE", "HELD", "BURN/H", "RUNWAY", "CARD", "AGE"], row.Keys);
        Assert.Equal((team.Account.Value, "Valid"), (row["NAME"], row["CARD"]));
        Assert.InRange(Money.Parse(row["BALANCE"]).Nanos, 0, Money.Parse("100.00").Nanos);
        Assert.InRange(Money.Parse(row["HELD"]).Nanos, 0, Money.Parse("20.00").Nanos);
        Assert.Matches("^([0-9]+m)?[0-9]+s$|^[0-9]+m$", row["RUNWAY"]);

        var events = await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespacedEventAsync("default", fieldSelector: $"involvedObject.name={team.Account}",
                cancellationToken: Ended)).Items,
            all => all.Any(IsLow), all => string.Join(", ", all.Select(each => each.Message)));
        var low = Assert.Single(events, IsLow);
        Assert.Equal("Warning", low.Type);
        Assert.Contains("is below the alert of $99.50", low.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_card_that_is_about_to_expire_and_one_that_has_are_told_in_events()
    {
        var team = await OpenTeamAsync("10.00");
        await SeeEventAsync("CardValid", "A valid card is on file");
        // To the end of this month, which is at most a month away.
        var now = TimeProvider.System.GetUtcNow();
        await SetExpiryAsync(now.Year, now.Month);
        await SeeEventAsync("CardExpiring", "Visa ending 4242, the last valid card, is no longer valid from");
        await SetExpiryAsync(2020, 1);
        var expired = await SeeEventAsync("CardExpired", "No valid card is on file");
        Assert.Equal("Warning", expired.Type);
        Assert.Contains("tensormesh_accounts_by_card{state=\"Expired\"} ", await Product.MetricsAsync(), StringComparison.Ordinal);
        var account = await Product.Accounts.ReadAsync<BillingAccount>(team.Account.Value, Ended);
        Assert.Equal(("Expired", "False"), (account.Status!.Card, account.Status.Conditions!.Single(each => each.Type == "CardValid").Status));

        async Task SetExpiryAsync(int year, int month)
        {
            await ExecuteAsync($"update payment_method set exp_year = {year}, exp_month = {month} where account = '{team.Account}'");
            // Money that moves makes the operator look.
            await GrantAsync(team.Account, "1.00");
        }

        async Task<Corev1Event> SeeEventAsync(string reason, string words) => (await Eventually.SeeAsync(
            async () => (await Client.CoreV1.ListNamespacedEventAsync("default", fieldSelector: $"involvedObject.name={team.Account}", cancellationToken: Ended)).Items,
            all => all.Any(each => each.Reason == reason), all => string.Join(", ", all.Select(each => $"{each.Reason}: {each.Message}"))))
            .Single(each => each.Reason == reason && each.Message.Contains(words, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Kubectl_shows_a_deployments_state_gpus_price_cost_and_reason_and_waits_for_it()
    {
        var team = await OpenTeamAsync("1000.00");
        await CreateAsync(Deployment(team, "train", replicas: 2, gpus: 2));
        await KubectlAsync("-n", team.Namespace, "wait", "--for=condition=Ready", "gpud/train", "--timeout=60s");
        var row = Cells(await KubectlAsync("-n", team.Namespace, "get", "gpud", "train"));
        Assert.Equal(["NAME", "READY", "GPUS", "GPU", "RATE/H", "COST", "REASON", "AGE"], row.Keys);
        Assert.Equal(("True", "4", Gpu, "14400.00", "Running"), (row["READY"], row["GPUS"], row["GPU"], row["RATE/H"], row["REASON"]));
        Assert.True(Money.TryParse(row["COST"], out _));
        await UntilRunningAsync(team, "train", replicas: 2);
    }

    [Fact]
    public async Task Kubectl_explains_what_a_customer_may_ask_for()
    {
        var text = await KubectlAsync("explain", "gpud.spec.gpu");
        Assert.Contains("The GPUs of each pod. Any product that satisfies all of it", Regex.Replace(text, @"\s+", " "),
            StringComparison.Ordinal);
        Assert.All((string[])["count", "product", "minMemory", "minComputeCapability", "container"], field =>
            Assert.Contains(field, text, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Metrics_parse_and_every_documented_name_is_there_and_the_probes_answer()
    {
        var team = await OpenTeamAsync("1000.00");
        await UntilSettledAsync(await StartAsync(team, "train"), times: 1);
        var metrics = await Product.MetricsAsync();
        Assert.All(
            metrics.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => line[0] != '#'),
            line => Assert.True(Sample().IsMatch(line)
                && double.TryParse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture, out _), line));
        string[] names =
        [
            "tensormesh_reconcile_total", "tensormesh_reconcile_seconds", "tensormesh_queue_depth", "tensormesh_active_workers",
            "tensormesh_informer_staleness_seconds", "tensormesh_informer_relists_total", "tensormesh_informer_objects",
                "tensormesh_leader",
            "tensormesh_gate_verdicts_total", "tensormesh_webhook_seconds", "tensormesh_suspensions_total",
                "tensormesh_suspend_lateness_seconds",
            "tensormesh_gpu_charged_dollars_total", "tensormesh_usage_windows_total", "tensormesh_uncollected_dollars_total",
            "tensormesh_settlement_lag_seconds", "tensormesh_ledger_up", "tensormesh_ledger_connections", "tensormesh_running_gpus", "tensormesh_accounts_below_alert", "tensormesh_accounts_by_card",
            "tensormesh_events_dropped_total",
        ];
        Assert.All(names, name => Assert.Contains($"# TYPE {name} ", metrics, StringComparison.Ordinal));
        Assert.Contains($"tensormesh_running_gpus{{product=\"{Gpu}\"}} ", metrics, StringComparison.Ordinal);
        Assert.Contains("\ntensormesh_leader 1\n", metrics, StringComparison.Ordinal);
        Assert.Contains("\ntensormesh_ledger_up 1\n", metrics, StringComparison.Ordinal);

        using var http = new HttpClient();
        foreach (var probe in (string[])["/healthz", "/readyz"])
        {
            using var answer = await http.GetAsync(new Uri(Installation.MetricsUrl, probe), Ended);
            Assert.Equal((HttpStatusCode.OK, "ok"), (answer.StatusCode, (await answer.Content.ReadAsStringAsync(Ended)).Trim()));
        }
    }

    /// <summary>Not the one from before the account had any money.</summary>
    private static bool IsLow(Corev1Event story) => story.Reason == "LowBalance"
        && !story.Message.Contains("balance of $0.00", StringComparison.Ordinal);

    /// <summary>The one row of a table, by column.</summary>
    private static Dictionary<string, string> Cells(string table)
    {
        var lines = table.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        var heads = Columns().Matches(lines[0]);
        return heads.Select((head, i) => (head.Value,
            Text: lines[1][Math.Min(head.Index, lines[1].Length)..(i + 1 < heads.Count ? heads[i + 1].Index : lines[1].Length)].Trim()))
            .ToDictionary(cell => cell.Value, cell => cell.Text);
    }

    [GeneratedRegex(@"\S+")]
    private static partial Regex Columns();

    [GeneratedRegex("""^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="[^"]*",?)*\})? \S+$""")]
    private static partial Regex Sample();
}
