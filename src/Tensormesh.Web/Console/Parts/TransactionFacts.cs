using System.Globalization;
using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>The details that a transaction was posted with, for people: windows, GPUs, prices, models, cards and reasons.</summary>
internal static class TransactionFacts
{
    /// <summary>What was used of one model.</summary>
    public sealed record Model(string Name, long Input, long Cached, long Output, Money Cost);

    private static readonly (string Member, string Name)[] Texts =
    [
        ("namespace", "Namespace"), ("deploymentName", "Deployment"), ("podName", "Pod"), ("node", "Node"), ("product", "GPU"), ("gpus", "GPUs"),
        ("priceVersion", "Price version"), ("month", "Month"), ("reason", "Reason"), ("message", "Message"), ("gpu", "Faulty GPU"), ("by", "By"),
        ("provider", "Payment company"), ("paymentIntentId", "Payment"), ("paymentMethodId", "Payment method"), ("disputeId", "Dispute"), ("refundId", "Refund"),
    ];

    public static (IReadOnlyList<(string Name, string Value)> Facts, IReadOnlyList<Model> Models) Of(AccountTransaction transaction, AccountCalendar calendar)
    {
        var (facts, models) = (new List<(string, string)>(), new List<Model>());
        if (string.IsNullOrEmpty(transaction.Details)) return (facts, models);
        var details = JsonElement.Parse(transaction.Details);
        if (Instant(details, "windowStart") is { } from && Instant(details, "windowEnd") is { } to)
        {
            facts.Add(("Window", $"{Clock(from)} to {Clock(to)} ({Words.Span(to - from)})"));
        }

        foreach (var (member, name) in Texts)
        {
            if (details.TryGetProperty(member, out var value) && value.ValueKind is JsonValueKind.String or JsonValueKind.Number && value.ToString() is { Length: > 0 } text)
            {
                facts.Add((name, text));
            }
        }

        if (details.TryGetProperty("gpuUuids", out var uuids) && uuids.ValueKind == JsonValueKind.Array)
        {
            facts.Add(("GPU UUIDs", string.Join(", ", uuids.EnumerateArray().Select(uuid => uuid.GetString()))));
        }

        if (Number(details, "perGpuHourNanos") is { } rate) facts.Add(("Price per GPU-hour", Words.Full(new Money(rate))));
        if (details.TryGetProperty("models", out var used) && used.ValueKind == JsonValueKind.Array)
        {
            models.AddRange(used.EnumerateArray().Select(one => new Model(
                one.GetProperty("model").GetString() ?? "", Number(one, "inputTokens") ?? 0, Number(one, "cachedTokens") ?? 0, Number(one, "outputTokens") ?? 0,
                new Money(Number(one, "amountNanos") ?? 0))));
        }

        return (facts, models);

        string Clock(DateTimeOffset at) => calendar.LocalOf(at).ToString("d MMM yyyy, HH:mm:ss.ffffff", CultureInfo.InvariantCulture);
    }

    private static long? Number(JsonElement json, string member) => json.TryGetProperty(member, out var value) && value.TryGetInt64(out var number) ? number : null;

    private static DateTimeOffset? Instant(JsonElement json, string member)
        => json.TryGetProperty(member, out var value) && value.ValueKind == JsonValueKind.String && value.TryGetDateTimeOffset(out var at) ? at : null;
}
