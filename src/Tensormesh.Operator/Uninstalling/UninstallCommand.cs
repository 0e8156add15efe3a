using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;

namespace Tensormesh.Operator.Uninstalling;

/// <summary>
/// <c>tensormesh-operator uninstall</c>, with the operator's own configuration and anybody's rights: for an operator that could not say goodbye itself, killed,
/// or without its rights. It may run before, between or after the deletion of CRDs, namespace and webhook, and twice.
/// </summary>
internal sealed class UninstallCommand(
    IKubernetes client, Uninstaller uninstaller, LeaseOptions lease, NpgsqlDataSource dataSource, LedgerClock clock, OperatorEpoch epoch, TimeProvider time)
{
    public const string Name = "uninstall";

    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(5);

    /// <returns>The exit code: 0 when nothing waits for an operator any more, 1 when one still works or something could not be let go.</returns>
    public async Task<int> RunAsync(CancellationToken stopping)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        limit.CancelAfter(Limit);
        try
        {
            if (await LeaderAsync(limit.Token).ConfigureAwait(false) is { } leader)
            {
                await Console.Error.WriteLineAsync($"tensormesh-operator: {leader} still leads and would start again what is ended: delete the operator first, then run this once more").ConfigureAwait(false);
                return 1;
            }

            await TakeOverAsync(limit.Token).ConfigureAwait(false);
            var done = await uninstaller.RunAsync(limit.Token).ConfigureAwait(false);
            Console.WriteLine($"{done.Deployments} GpuDeployments and {done.Pods} pods are let go; nothing is charged any more.");
            if (done.Unrecorded > 0) Console.WriteLine($"The ledger could not be reached for {done.Unrecorded} pods: run this once more when it can, or their runs stay open.");
            return done.Unrecorded > 0 ? 1 : 0;
        }
        catch (Exception fault) when (fault is HttpOperationException or HttpRequestException or OperationCanceledException)
        {
            await Console.Error.WriteLineAsync($"tensormesh-operator: {(fault as HttpOperationException)?.Response.Content ?? fault.Message}").ConfigureAwait(false);
            return 1;
        }
    }

    /// <summary>What is written from here on is this process's, and in the ledger's time. A ledger that is away keeps nothing from being let go.</summary>
    private async Task TakeOverAsync(CancellationToken cancellation)
    {
        try
        {
            await clock.ReadAsync(dataSource, cancellation).ConfigureAwait(false);
            await epoch.TakeAsync(lease.Identity, cancellation).ConfigureAwait(false);
        }
        catch (Exception away) when (LedgerAvailability.IsUnavailable(away))
        {
            await Console.Error.WriteLineAsync($"tensormesh-operator: the ledger cannot be reached: {away.Message}").ConfigureAwait(false);
        }
    }

    /// <summary>Who renews the lease; null when nobody has for as long as it lasts, by this process's own clock.</summary>
    private async Task<string?> LeaderAsync(CancellationToken cancellation)
    {
        var began = time.GetTimestamp();
        V1LeaseSpec? first = null;
        while (true)
        {
            if (await ReadAsync(cancellation).ConfigureAwait(false) is not { HolderIdentity: { Length: > 0 } holder } now) return null;
            if (first is not null && (now.RenewTime, now.HolderIdentity) != (first.RenewTime, first.HolderIdentity)) return holder;
            first ??= now;
            if (time.GetElapsedTime(began) > lease.Duration) return null;
            await Task.Delay(Poll, time, cancellation).ConfigureAwait(false);
        }
    }

    private async Task<V1LeaseSpec?> ReadAsync(CancellationToken cancellation)
    {
        try
        {
            return (await client.CoordinationV1.ReadNamespacedLeaseAsync(lease.Name, lease.Namespace, cancellationToken: cancellation).ConfigureAwait(false)).Spec;
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.Forbidden)
        {
            // No lease, or no right to it any more: that went with the namespace, and an operator's with it.
            return null;
        }
    }
}
