using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>A charge says which GPUs it is for, once their node has said which a pod holds.</summary>
public sealed class GpuEvidenceTests(PostgresFixture postgres) : BillingTest(postgres)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
    }

    [Fact]
    public async Task What_was_recorded_first_stays_and_pods_without_a_run_wait_for_one()
    {
        await OpenAsync(Acme, "100.00");
        var (_, first) = await RunAsync(2, T0);
        var (deployment, second) = (NewDeployment(), NewPod());
        Assert.Equal([first], await RecordAsync((first, ["GPU-b", "GPU-a"]), (second, ["GPU-c"])));
        await Runs.OpenAsync(Start(deployment, second, 1, T0), Cancellation);
        Assert.Equal([first, second], (await RecordAsync((second, ["GPU-c"]), (first, ["GPU-x"]), (NewPod(), ["GPU-y"]))).OrderBy(pod => pod != first));
        Assert.Equal(["GPU-b", "GPU-a"], await ScalarAsync<string[]>($"select uuids from run_interval_gpus where pod = '{first}'"));
        Assert.Equal(["GPU-c"], await ScalarAsync<string[]>($"select uuids from run_interval_gpus where pod = '{second}'"));
        Assert.Empty(await RecordAsync());
    }

    [Fact]
    public async Task Calls_at_once_all_find_what_one_of_them_recorded()
    {
        await OpenAsync(Acme, "1000.00");
        var pods = new List<PodId>();
        for (var i = 0; i < 6; i++) pods.Add((await RunAsync(1, T0)).Pod);
        var calls = await Task.WhenAll(Enumerable.Range(0, 12).Select(i => Task.Run(() => Runs.RecordGpusAsync(
            [.. pods.Skip(i % 6).Concat(pods.Take(i % 6)).Select(pod => new HeldGpus(pod, [$"GPU-{i}"]))], Cancellation))));
        Assert.All(calls, recorded => Assert.Equal(6, recorded.Count));
    }

    [Fact]
    public async Task Recording_does_not_wait_for_whoever_has_locked_the_account()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(1, T0);
        await using var settling = await Database.OpenConnectionAsync(Cancellation);
        await using var transaction = await settling.BeginTransactionAsync(Cancellation);
        await using var locked = settling.CreateCommand();
        locked.CommandText = "select lock_ledger_accounts('{customer:acme}'); update run_interval set settled_until = settled_until";
        await locked.ExecuteNonQueryAsync(Cancellation);
        Assert.Equal([pod], await RecordAsync((pod, ["GPU-1"])).WaitAsync(TimeSpan.FromSeconds(30), Cancellation));
    }

    [Fact]
    public async Task Every_charge_of_a_run_carries_its_gpus_and_says_nothing_of_them_while_they_are_unknown()
    {
        await OpenAsync(Acme, "10.00");
        var (_, pod) = await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(1), Cancellation);
        await RecordAsync((pod, ["GPU-b", "GPU-a"]));
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(20), Cancellation);
        var details = (await Transactions.ListAsync(Acme, null, 10, Cancellation)).Where(one => one.Type.StartsWith("GpuUsage", StringComparison.Ordinal))
            .Select(one => (one.Type, Gpus: JsonDocument.Parse(one.Details).RootElement.TryGetProperty("gpuUuids", out var gpus) ? gpus.GetRawText() : null));
        Assert.Equal(
            [("GpuUsageCorrection", """["GPU-b", "GPU-a"]"""), ("GpuUsage", """["GPU-b", "GPU-a"]"""), ("GpuUsage", null)], details);

        var (_, other) = await RunAsync(3, T0.AddHours(1), policy: Policy with { HoldWindow = TimeSpan.FromMinutes(1) });
        await RecordAsync((other, ["GPU-c"]));
        await Meter.SuspendIfExhaustedAsync(Acme, Policy, T0.AddHours(9), Cancellation);
        Assert.Equal("GPU-c", await ScalarAsync<string>(
            "select details -> 'pods' -> 0 -> 'gpuUuids' ->> 0 from ledger_transaction where type = 'Uncollected'"));
    }

    [Fact]
    public async Task Evidence_that_can_not_be_is_refused_and_nothing_of_the_call_is_recorded()
    {
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(1, T0);
        var other = NewPod();
        async Task<string> RefusedAsync(params string[] gpus)
            => (await Assert.ThrowsAsync<ArgumentException>(() => RecordAsync((pod, ["GPU-1"]), (other, gpus)))).Message;

        Assert.StartsWith($"a GPU of pod {other} has an empty UUID", await RefusedAsync("GPU-1", " "), StringComparison.Ordinal);
        Assert.StartsWith($"pod {other} is said to hold 0 GPUs: 1 to 64 can be recorded", await RefusedAsync(), StringComparison.Ordinal);
        Assert.StartsWith(
            $"pod {other} is said to hold 65 GPUs", await RefusedAsync([.. Enumerable.Range(0, 65).Select(i => $"GPU-{i}")]), StringComparison.Ordinal);
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from run_interval_gpus"));
        Assert.Equal([pod], await RecordAsync((pod, [.. Enumerable.Range(0, 64).Select(i => $"GPU-{i}")])));
    }

    private Task<IReadOnlyCollection<PodId>> RecordAsync(params (PodId Pod, string[] Gpus)[] held)
        => Runs.RecordGpusAsync([.. held.Select(one => new HeldGpus(one.Pod, one.Gpus))], Cancellation);
}
