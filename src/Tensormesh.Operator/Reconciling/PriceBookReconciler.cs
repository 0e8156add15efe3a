using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Publishes PriceBooks to the ledger as price versions. A book that disagrees with one that was there first is refused whole: no price is ever a guess.</summary>
internal sealed class PriceBookReconciler(StatusWriter writer, ClusterView cluster, Prices prices, PriceList list, TimeProvider time)
{
    /// <returns>When to look again; <paramref name="changed"/> is called when a price changed.</returns>
    public async Task<DateTimeOffset?> ReconcileAsync(string name, Action changed, CancellationToken cancellation)
    {
        var now = time.GetUtcNow();
        var book = cluster.PriceBooks.Find(name);
        var entries = new Dictionary<GpuProduct, Money>();
        var tokens = new List<TokenPrice>();
        if (book is { Metadata.DeletionTimestamp: null })
        {
            var errors = Validation.Validate(book);
            var clash = errors.Count == 0 ? Clash(book, await prices.InForceAsync(cancellation).ConfigureAwait(false)) : null;
            if (errors.Count > 0 || clash is not null)
            {
                await ReportAsync(book, false, clash is null ? ConditionReasons.InvalidPrice : ConditionReasons.PriceConflict, clash ?? string.Join("; ", errors), cancellation).ConfigureAwait(false);
                return null;
            }

            foreach (var gpu in book.Spec.Gpus ?? []) entries[new GpuProduct(gpu.Product)] = Money.Parse(gpu.PerHour);
            tokens.AddRange((book.Spec.Serverless ?? []).Select(model => new TokenPrice(
                model.Model, Money.Parse(model.InputPerMillion), Money.Parse(model.OutputPerMillion), Money.Parse(model.CachedPerMillion))));
        }

        // A book that is gone publishes nothing: its products are withdrawn.
        var versions = await prices.PublishAsync(name, entries, tokens, now, cancellation).ConfigureAwait(false);
        if (versions.Count > 0 || book is null)
        {
            list.Forget();
            changed();
        }

        if (book is not null)
        {
            await ReportAsync(book, true, ConditionReasons.Published, $"{entries.Count} GPU prices and {tokens.Count} token prices are in force.", cancellation).ConfigureAwait(false);
        }

        return null;
    }

    /// <summary>A product or model that a book before this one prices already.</summary>
    private string? Clash(PriceBook book, IReadOnlySet<(string Book, string Item)> inForce)
    {
        foreach (var other in cluster.PriceBooks.All.Where(other => other.Metadata.Name != book.Metadata.Name).OrderBy(other => other.Metadata.Name, StringComparer.Ordinal))
        {
            bool First(string item) => IsBefore(other, book, item, inForce);
            var product = (book.Spec.Gpus ?? []).FirstOrDefault(gpu => (other.Spec.Gpus ?? []).Any(theirs => theirs.Product == gpu.Product) && First(gpu.Product))?.Product;
            var model = (book.Spec.Serverless ?? []).FirstOrDefault(entry => (other.Spec.Serverless ?? []).Any(theirs => theirs.Model == entry.Model) && First(entry.Model))?.Model;
            if ((product ?? model) is { } twice)
            {
                return $"PriceBook {other.Metadata.Name} already prices {twice}: take it out of one of the two. Nothing of this book was published.";
            }
        }

        return null;
    }

    /// <summary>A price in force is never taken over by another book. Between two that have none yet: by age, which the server keeps in whole seconds, then by name.</summary>
    private static bool IsBefore(PriceBook left, PriceBook right, string item, IReadOnlySet<(string Book, string Item)> inForce)
    {
        return Rank(left).CompareTo(Rank(right)) < 0;

        (bool NotInForce, DateTime Created, string Name) Rank(PriceBook book)
            => (!inForce.Contains((book.Metadata.Name, item)), book.Metadata.CreationTimestamp ?? DateTime.MaxValue, book.Metadata.Name);
    }

    private async Task ReportAsync(PriceBook book, bool ready, string reason, string message, CancellationToken cancellation)
    {
        var status = new PriceBookStatus
        {
            ObservedGeneration = book.Metadata.Generation,
            Conditions = ConditionList.Merge(
                book.Status?.Conditions, [new ConditionReport(ConditionTypes.Ready, ready, reason, message)], book.Metadata.Generation, time.GetUtcNow()),
        };
        await writer.WriteAsync(book, PriceBook.PluralName, book.Status, status, cancellation).ConfigureAwait(false);
    }
}
