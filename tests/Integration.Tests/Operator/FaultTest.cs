using System.Globalization;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Words for what stories of faults do often.</summary>
[Collection(FaultSuite.Name)]
public abstract class FaultTest(FaultFixture faults) : OperatorTest(faults.Product)
{
    protected const string LeaseName = "tensormesh-operator";
    protected static readonly IReadOnlyDictionary<string, string> NoChanges = new Dictionary<string, string>();

    /// <summary>Ends what is left of the installation's operator, in whatever state, and starts it as it was at first.</summary>
    protected async Task StartOverAsync()
    {
        await Installation.KillOperatorAsync();
        await ForgetLeaseAsync(Installation.Namespace);
        await Installation.StartOperatorAsync(CancellationToken.None);
    }

    /// <summary>Spares the next operator the wait for a dead one's lease.</summary>
    protected async Task ForgetLeaseAsync(string ns)
    {
        try
        {
            await Client.CoordinationV1.DeleteNamespacedLeaseAsync(LeaseName, ns, cancellationToken: CancellationToken.None);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode == System.Net.HttpStatusCode.NotFound)
        {
        }
    }

    protected static async Task UntilLeadingAsync(Uri metrics)
        => await Eventually.SeeAsync(() => MetricAsync(metrics, "tensormesh_leader"), leader => leader == 1);

    /// <summary>A metric without labels; zero while nobody answers or it was not set yet.</summary>
    protected static async Task<double> MetricAsync(Uri metrics, string name)
    {
        using var http = new HttpClient();
        try
        {
            var line = (await http.GetStringAsync(metrics, Ended)).Split('\n').FirstOrDefault(line => line.StartsWith(name + " ", StringComparison.Ordinal));
            return line is null ? 0 : double.Parse(line.Split(' ')[1], CultureInfo.InvariantCulture);
        }
        catch (HttpRequestException)
        {
            return 0;
        }
    }

    /// <summary>The instant that the ledger's database takes it for.</summary>
    protected async Task<DateTimeOffset> LedgerNowAsync() => new(await ScalarAsync<DateTime>("select clock_timestamp()"));

    protected async Task UntilAsync(DateTimeOffset instant)
        => await Eventually.SeeAsync(LedgerNowAsync, now => now >= instant);

    /// <summary>So many holds, child Deployments and live pods as there should be of each, and every one of the right deployment.</summary>
    protected async Task SeeExactlyAsync(Team team, params (string Name, int Replicas)[] expected)
    {
        foreach (var (name, replicas) in expected) await UntilRunningAsync(team, name, replicas);
        Assert.Equal(expected.Length, await HoldsAsync(team.Account));
        var children = (await Client.AppsV1.ListNamespacedDeploymentAsync(team.Namespace, cancellationToken: Ended)).Items;
        Assert.Equal(
            expected.OrderBy(one => one.Name, StringComparer.Ordinal),
            children.Select(child => (child.Name(), child.Spec.Replicas!.Value)).OrderBy(one => one.Item1, StringComparer.Ordinal));
        var pods = (await PodsAsync(team)).Where(pod => pod.Metadata.DeletionTimestamp is null).ToList();
        Assert.Equal(expected.Sum(one => one.Replicas), pods.Count);
        Assert.Equal((long)pods.Count, await ScalarAsync<long>(
            $"select count(*) from run_interval where account = '{team.Account}' and ended_at is null and charge_until is null"));
    }

    /// <summary>What the account's deployments were suspended for at their exhaustion, and what of it nobody pays.</summary>
    protected async Task<(DateTimeOffset At, DateTimeOffset DecidedAt, long Uncollected)> SuspensionAsync(Team team)
    {
        Assert.Equal(1L, await ScalarAsync<long>($"select count(*) from suspension where account = '{team.Account}'"));
        await using var command = Product.Database.CreateCommand(
            $"select at, decided_at, uncollected_nanos from suspension where account = '{team.Account}'");
        await using var reader = await command.ExecuteReaderAsync(Ended);
        Assert.True(await reader.ReadAsync(Ended));
        return (reader.GetFieldValue<DateTimeOffset>(0), reader.GetFieldValue<DateTimeOffset>(1), reader.GetInt64(2));
    }

    /// <summary>What was written off for the account is one movement, of what ran from the end of its balance until someone saw it.</summary>
    protected async Task AssertWrittenOffOnceAsync(Team team, RunRow run)
    {
        var (at, decided, uncollected) = await SuspensionAsync(team);
        Assert.Equal(at, run.ChargeUntil);
        var lost = Rating.Due(decided - run.StartedAt, run.PerGpuHour, run.Gpus) - run.Total;
        Assert.Equal(lost.Nanos, uncollected);
        Assert.Equal((1L, (decimal)lost.Nanos), (
            await ScalarAsync<long>($"select count(*) from ledger_transaction where type = 'Uncollected' and details ->> 'account' = '{team.Account}'"),
            await ScalarAsync<decimal>(
                $"""
                select sum(e.amount_nanos) from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
                where t.type = 'Uncollected' and e.amount_nanos > 0 and t.details ->> 'account' = '{team.Account}'
                """)));
    }

    /// <summary>The log, which its process is still writing.</summary>
    /// <param name="from">Where to begin: one file takes the logs of all processes of one name.</param>
    protected static async Task<string> LogAsync(string file, long from = 0)
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        stream.Position = from;
        using var reader = new StreamReader(stream);
        return await reader.ReadToEndAsync(Ended);
    }

    protected static Task<string> UntilLoggedAsync(string file, string text, int times = 1) => Eventually.SeeAsync(
        () => LogAsync(file), log => log.Split(text).Length > times, log => $"'{text}' is not in {log[^Math.Min(log.Length, 2000)..]}");
}
