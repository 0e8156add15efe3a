using Tensormesh.Billing;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Publishes PriceBooks to the ledger as price versions. A book that disagrees with an older one is refused whole: no price is ever a guess.</summary>
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
            var clash = errors.Count == 0 ? Clash(book) : null;
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

    /// <summary>A product or model that an older book prices already.</summary>
    private string? Clash(PriceBook book)
    {
        foreach (var other in cluster.PriceBooks.All.Where(other => other.Metadata.Name != book.Metadata.Name && Older(other, book)).OrderBy(other => other.Metadata.Name, StringComparer.Ordinal))
        {
            var product = (book.Spec.Gpus ?? []).FirstOrDefault(gpu => (other.Spec.Gpus ?? []).Any(theirs => theirs.Product == gpu.Product))?.Product;
            var model = (book.Spec.Serverless ?? []).FirstOrDefault(entry => (other.Spec.Serverless ?? []).Any(theirs => theirs.Model == entry.Model))?.Model;
            if ((product ?? model) is { } twice)
            {
                return $"PriceBook {other.Metadata.Name} already prices {twice}: take it out of one of the two. Nothing of this book was published.";
            }
        }

        return null;
    }

    private static bool Older(PriceBook left, PriceBook right)
        => (left.Metadata.CreationTimestamp ?? DateTime.MaxValue, left.Metadata.Name).CompareTo((right.Metadata.CreationTimestamp ?? DateTime.MaxValue, right.Metadata.Name)) < 0;

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
