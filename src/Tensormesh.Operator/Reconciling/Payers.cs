using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>
/// Who pays for a namespace. The local copies answer; only where they know of no payer is the server itself asked, once: a namespace, its label and a
/// deployment may be applied in one breath, and each watch hears of its own kind a moment later.
/// </summary>
internal sealed class Payers(ClusterView cluster, IKubernetes client)
{
    /// <summary>The account that the namespace's label names; null when there is no such label, or no such namespace.</summary>
    public async Task<AccountId?> OfAsync(string? @namespace, CancellationToken cancellation)
    {
        if (cluster.AccountOf(@namespace) is { } known) return known;
        if (@namespace is null) return null;
        return await FoundAsync(client.CoreV1.ReadNamespaceAsync(@namespace, cancellationToken: cancellation)).ConfigureAwait(false) is { } found
            ? ClusterView.AccountOf(found)
            : null;
    }

    /// <summary>True when a BillingAccount that can be declared to the ledger has this name.</summary>
    public async Task<bool> IsToBeOpenedAsync(AccountId account, CancellationToken cancellation)
    {
        if (cluster.BillingAccounts.Find(account.Value) is { } known) return Validation.Validate(known).Count == 0;
        var read = client.CustomObjects.GetClusterCustomObjectAsync<BillingAccount>(
            WellKnown.Group, WellKnown.Version, BillingAccount.PluralName, account.Value, cancellation);
        return await FoundAsync(read).ConfigureAwait(false) is { } found && Validation.Validate(found).Count == 0;
    }

    /// <summary>Null when there is no such object, or the server does not say: then what the local copies say stands.</summary>
    private static async Task<T?> FoundAsync<T>(Task<T> read)
        where T : class
    {
        try
        {
            return await read.ConfigureAwait(false);
        }
        catch (HttpOperationException missing) when (missing.Response.StatusCode is HttpStatusCode.NotFound or HttpStatusCode.Forbidden)
        {
            return null;
        }
        catch (HttpRequestException)
        {
            return null;
        }
    }
}
