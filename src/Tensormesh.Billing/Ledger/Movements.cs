using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Tensormesh.Billing;

/// <summary>The ways that money moves. The names are stored and shown.</summary>
public enum MovementType
{
    /// <summary>cash:{provider} to the customer.</summary>
    TopUp,
    /// <summary>expense:credit_grants to the customer.</summary>
    CreditGrant,
    /// <summary>The customer to revenue:gpu, for one window of one run interval.</summary>
    GpuUsage,
    /// <summary>revenue:gpu back to the customer: the pod had ended before what was settled.</summary>
    GpuUsageCorrection,
    /// <summary>revenue:gpu back to the customer: a GPU of the run was not seen well after an instant, and past it nothing is charged.</summary>
    GpuFaultCredit,
    /// <summary>The customer to revenue:serverless, for tokens of one day.</summary>
    ServerlessUsage,
    /// <summary>expense:uncollected to revenue:gpu: work that an outage let run past zero. Never touches the customer.</summary>
    Uncollected,
    /// <summary>The customer to cash:{provider}: paid money that goes back, of one top-up.</summary>
    Refund,
    /// <summary>The customer, as far as its balance goes, and receivable:disputes to cash:{provider}: the card company took a top-up back.</summary>
    Dispute,
    /// <summary>The mirror of a dispute that we won.</summary>
    DisputeReversal,
    /// <summary>expense:write_offs to receivable:disputes: what a customer owes us after a dispute, and will not pay.</summary>
    WriteOff,
    /// <summary>expense:adjustments to the customer, or back: by a person, with the reason.</summary>
    Adjustment,
    /// <summary>The customer to expense:credit_grants: what is left of a grant when it expires.</summary>
    CreditExpiry,
    /// <summary>The mirror of one transaction, once.</summary>
    Reversal,
}

/// <summary>One side of a movement. Positive is a credit, negative a debit.</summary>
internal sealed record Entry(string LedgerAccount, Money Amount, string Currency = Money.Currency);

/// <summary>One way that money moves: a type, an idempotency key that is its meaning, and entries that sum to zero.</summary>
public sealed record Movement
{
    internal Movement() { }

    public required MovementType Type { get; init; }

    /// <summary>The same key with the same type and entries is posted once; with others it is refused.</summary>
    public required string Key { get; init; }

    internal IReadOnlyList<Entry> Entries { get; init; } = [];

    /// <summary>When it took effect; null: when it is posted. Not part of what is compared when the key comes again.</summary>
    public DateTimeOffset? EffectiveAt { get; init; }

    public required string Description { get; init; }

    /// <summary>A JSON object, kept with the transaction.</summary>
    public string Details { get; init; } = "{}";
}

/// <summary>Every way that money moves. Nothing posts outside this set.</summary>
public static class Movements
{
    /// <summary>Money in from a payment; the key is <c>topup/{provider}/{paymentIntentId}</c>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The amount is not above zero.</exception>
    public static Movement TopUp(AccountId account, Money amount, string provider, string paymentIntentId, string paymentMethodId) => new()
    {
        Type = MovementType.TopUp,
        Key = $"topup/{provider}/{paymentIntentId}",
        Entries = Transfer($"cash:{provider}", Customer(account), amount),
        Description = "Balance added",
        Details = new JsonObject
        {
            ["provider"] = provider,
            ["paymentIntentId"] = paymentIntentId,
            ["paymentMethodId"] = paymentMethodId,
        }.ToJsonString(),
    };

    /// <summary>Credit that a platform operator adds; <paramref name="by"/> and <paramref name="reason"/> are kept with it.</summary>
    /// <param name="key">The caller's own idempotency key; it is posted as <c>grant/{account}/{key}</c>.</param>
    /// <param name="expiresAt">When what is left of it goes back; null: never.</param>
    /// <exception cref="ArgumentOutOfRangeException">The amount is not above zero.</exception>
    public static Movement CreditGrant(
        AccountId account, Money amount, string key, string by, string reason, DateTimeOffset? expiresAt = null) => new()
        {
            Type = MovementType.CreditGrant,
            Key = $"grant/{account}/{key}",
            Entries = Transfer("expense:credit_grants", Customer(account), amount),
            Description = "Credit granted",
            Details = (expiresAt is { } until
                ? new JsonObject { ["by"] = by, ["reason"] = reason, ["expiresAt"] = Stamp(until.ToLedgerTime()) }
                : new JsonObject { ["by"] = by, ["reason"] = reason }).ToJsonString(),
        };

    /// <summary>What is left of a grant when it expires; the key is <c>grant-expiry/{grant}</c>.</summary>
    /// <param name="grant">The grant's transaction id.</param>
    internal static Movement CreditExpiry(AccountId account, string grant, Money left, DateTimeOffset expiredAt) => new()
    {
        Type = MovementType.CreditExpiry,
        Key = $"grant-expiry/{grant}",
        Entries = Transfer(Customer(account), "expense:credit_grants", left),
        EffectiveAt = expiredAt,
        Description = "Credit expired",
        Details = new JsonObject { ["transaction"] = grant }.ToJsonString(),
    };

    /// <summary>A top-up, or part of it, that goes back to the card; the key is <c>refund/{provider}/{refundId}</c>.</summary>
    /// <param name="topUp">The top-up's transaction id.</param>
    internal static Movement Refund(AccountId account, Money amount, string provider, string refundId, string topUp) => new()
    {
        Type = MovementType.Refund,
        Key = $"refund/{provider}/{refundId}",
        Entries = Transfer(Customer(account), $"cash:{provider}", amount),
        Description = "Refund to the card",
        Details = new JsonObject { ["provider"] = provider, ["refundId"] = refundId, ["transaction"] = topUp }.ToJsonString(),
    };

    /// <summary>What the card company took back of a top-up; the key is <c>dispute/{provider}/{disputeId}</c>.</summary>
    /// <param name="fromBalance">What of it the customer's balance covers. The customer owes us the rest.</param>
    /// <param name="topUp">The top-up's transaction id.</param>
    internal static Movement Dispute(
        AccountId account, Money amount, Money fromBalance, string provider, string disputeId, string topUp)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(amount.Nanos, 0, nameof(amount));
        ArgumentOutOfRangeException.ThrowIfNegative(fromBalance.Nanos, nameof(fromBalance));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(fromBalance.Nanos, amount.Nanos, nameof(fromBalance));
        Entry[] all = [new(Customer(account), -fromBalance), new("receivable:disputes", fromBalance - amount), new($"cash:{provider}", amount)];
        return new()
        {
            Type = MovementType.Dispute,
            Key = $"dispute/{provider}/{disputeId}",
            Entries = [.. all.Where(entry => entry.Amount != Money.Zero)],
            Description = fromBalance < amount ? $"Disputed with the card company, {amount - fromBalance} of it spent before" : "Disputed with the card company",
            Details = new JsonObject
            {
                ["account"] = account.Value,
                ["provider"] = provider,
                ["disputeId"] = disputeId,
                ["owedNanos"] = (amount - fromBalance).Nanos,
                ["transaction"] = topUp,
            }.ToJsonString(),
        };
    }

    /// <summary>A dispute that we won: what it took comes back to where it came from. The key is <c>dispute-reversal/{dispute}</c>.</summary>
    internal static Movement DisputeReversal(PostedTransaction dispute) => new()
    {
        Type = MovementType.DisputeReversal,
        Key = $"dispute-reversal/{dispute.Id}",
        Entries = dispute.Mirror(),
        Description = "Dispute decided for us",
        Details = new JsonObject { ["transaction"] = dispute.Id }.ToJsonString(),
    };

    /// <summary>What a customer owes us after a dispute, and will not pay; the key is <c>write-off/{dispute}/{key}</c>.</summary>
    /// <param name="dispute">The dispute's transaction id.</param>
    /// <exception cref="ArgumentOutOfRangeException">The amount is not above zero.</exception>
    public static Movement WriteOff(string dispute, Money amount, string key, string by, string reason) => new()
    {
        Type = MovementType.WriteOff,
        Key = $"write-off/{dispute}/{key}",
        Entries = Transfer("expense:write_offs", "receivable:disputes", amount),
        Description = "Written off",
        Details = new JsonObject { ["by"] = by, ["reason"] = reason, ["transaction"] = dispute }.ToJsonString(),
    };

    /// <summary>What a person puts right by hand: above zero to the customer, below zero from it. The key is <c>adjustment/{account}/{key}</c>.</summary>
    /// <exception cref="ArgumentException">Nobody did it, or for no reason.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The amount is zero.</exception>
    public static Movement Adjustment(AccountId account, Money amount, string key, string by, string reason)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(by);
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        ArgumentOutOfRangeException.ThrowIfZero(amount.Nanos, nameof(amount));
        return new()
        {
            Type = MovementType.Adjustment,
            Key = $"adjustment/{account}/{key}",
            Entries = amount > Money.Zero
                ? Transfer("expense:adjustments", Customer(account), amount)
                : Transfer(Customer(account), "expense:adjustments", -amount),
            Description = "Adjustment",
            Details = new JsonObject { ["by"] = by, ["reason"] = reason }.ToJsonString(),
        };
    }

    /// <summary>The mirror of a transaction; the key is <c>reversal/{transaction}</c>, so that there is one.</summary>
    internal static Movement Reversal(PostedTransaction of, string by, string reason) => new()
    {
        Type = MovementType.Reversal,
        Key = $"reversal/{of.Id}",
        Entries = of.Mirror(),
        Description = $"Reversal of {of.Id}",
        Details = new JsonObject { ["by"] = by, ["reason"] = reason, ["transaction"] = of.Id }.ToJsonString(),
    };

    /// <summary>What one pod's GPUs cost from where it was settled to <paramref name="windowEnd"/>.</summary>
    internal static Movement GpuUsage(Run run, DateTimeOffset windowEnd, Money amount) => new()
    {
        Type = MovementType.GpuUsage,
        Key = $"gpu/{run.Deployment}/{run.Pod}/{Key(windowEnd)}",
        Entries = Transfer(Customer(run.Account), "revenue:gpu", amount),
        EffectiveAt = windowEnd,
        Description = $"{run.Gpus} x {run.Product} at {run.PerGpuHour} per GPU-hour, {Seconds(windowEnd - run.SettledUntil)} s "
            + $"({run.Namespace}/{run.DeploymentName})",
        Details = Describe(run, run.SettledUntil, windowEnd).ToJsonString(),
    };

    /// <summary>What was charged for one pod past its end. One per pod, because a pod ends once.</summary>
    internal static Movement GpuUsageCorrection(Run run, DateTimeOffset end, Money amount) => new()
    {
        Type = MovementType.GpuUsageCorrection,
        Key = $"gpu-correction/{run.Deployment}/{run.Pod}",
        Entries = Transfer("revenue:gpu", Customer(run.Account), amount),
        EffectiveAt = end,
        Description = $"Correction: {run.Gpus} x {run.Product} ended {Seconds(run.SettledUntil - end)} s before what was charged "
            + $"({run.Namespace}/{run.DeploymentName})",
        Details = Describe(run, end, run.SettledUntil).ToJsonString(),
    };

    /// <summary>What was charged for one pod past the last instant at which its GPU was seen well. One for each such instant of a pod.</summary>
    internal static Movement GpuFaultCredit(Run run, GpuFault fault, DateTimeOffset healthyUntil, Money amount)
    {
        var details = Describe(run, healthyUntil, run.SettledUntil);
        details["gpu"] = fault.Gpu;
        details["reason"] = fault.Reason;
        details["message"] = fault.Message;
        details["lastHealthyAt"] = fault.LastHealthyAt is { } last ? Stamp(last.ToLedgerTime()) : null;
        details["seenAt"] = Stamp(fault.SeenAt.ToLedgerTime());
        details["recoveredAt"] = fault.RecoveredAt is { } recovered ? Stamp(recovered.ToLedgerTime()) : null;
        return new()
        {
            Type = MovementType.GpuFaultCredit,
            Key = $"gpu-fault/{run.Deployment}/{run.Pod}/{Key(healthyUntil)}",
            Entries = Transfer("revenue:gpu", Customer(run.Account), amount),
            EffectiveAt = healthyUntil,
            Description = $"Credit: {run.Gpus} x {run.Product}, {Seconds(run.SettledUntil - healthyUntil)} s charged after a GPU was last seen "
                + $"healthy ({run.Namespace}/{run.DeploymentName}; {fault.Gpu} on {fault.Node}: {fault.Reason})",
            Details = details.ToJsonString(),
        };
    }

    /// <summary>What tokens cost that were used on one day of the account's calendar, from what was settled before. The key is
    /// <c>serverless/{account}/{from}-{to}</c>: nanos that the account was charged for tokens since it was opened.</summary>
    internal static Movement ServerlessUsage(AccountId account, TokenCharge charge, Money from, Money to, string? traceparent)
    {
        var details = new JsonObject
        {
            ["day"] = charge.Day.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture),
            ["models"] = new JsonArray([.. charge.Models.Select(one => (JsonNode)new JsonObject
            {
                ["model"] = one.Model,
                ["priceVersion"] = one.Version.Value,
                ["inputTokens"] = one.Tokens.Input,
                ["cachedTokens"] = one.Tokens.Cached,
                ["outputTokens"] = one.Tokens.Output,
                ["amountNanos"] = one.Amount.Nanos,
            })]),
        };
        if (traceparent is not null) details["traceparent"] = traceparent;
        var tokens = charge.Models.Aggregate(default(TokenTotals), (sum, one) => sum + one.Tokens);
        var models = charge.Models.Select(one => one.Model).Distinct().ToArray();
        return new()
        {
            Type = MovementType.ServerlessUsage,
            Key = string.Create(CultureInfo.InvariantCulture, $"serverless/{account}/{from.Nanos}-{to.Nanos}"),
            Entries = Transfer(Customer(account), "revenue:serverless", charge.Amount),
            EffectiveAt = charge.LastAt,
            Description = string.Create(CultureInfo.InvariantCulture,
                $"Serverless: {tokens.Input} input and {tokens.Output} output tokens ({(models.Length == 1 ? models[0] : $"{models.Length} models")})"),
            Details = details.ToJsonString(),
        };
    }

    /// <param name="subject">The account, deployment or pod that it is about: part of the key.</param>
    /// <param name="lost">Each run with what nobody pays for it.</param>
    internal static Movement Uncollected(
        AccountId account, string subject, DateTimeOffset from, DateTimeOffset to, IReadOnlyList<(Run Run, Money Amount)> lost) => new()
        {
            Type = MovementType.Uncollected,
            Key = $"uncollected/{subject}/{Key(from)}/{Key(to)}",
            Entries = Transfer("expense:uncollected", "revenue:gpu", lost.Aggregate(Money.Zero, (sum, one) => sum + one.Amount)),
            EffectiveAt = to,
            Description = $"Uncollected from account {account}: work ran {Seconds(to - from)} s past the end of its balance",
            Details = new JsonObject
            {
                ["account"] = account.Value,
                ["windowStart"] = Stamp(from),
                ["windowEnd"] = Stamp(to),
                ["pods"] = new JsonArray([.. lost.Select(one =>
            {
                var pod = Describe(one.Run, from, to);
                pod["amountNanos"] = one.Amount.Nanos;
                return (JsonNode)pod;
            })]),
            }.ToJsonString(),
        };

    internal const string CustomerPrefix = "customer:";

    internal static string Customer(AccountId account) => CustomerPrefix + account.Value;

    private static Entry[] Transfer(string from, string to, Money amount)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(amount.Nanos, 0, nameof(amount));
        return [new(from, -amount), new(to, amount)];
    }

    private static JsonObject Describe(Run run, DateTimeOffset from, DateTimeOffset to)
    {
        var description = DescribeWindow(run, from, to);
        if (run.GpuUuids.Count > 0) description["gpuUuids"] = new JsonArray([.. run.GpuUuids.Select(uuid => (JsonNode)uuid)]);
        return description;
    }

    private static JsonObject DescribeWindow(Run run, DateTimeOffset from, DateTimeOffset to) => new()
    {
        ["deployment"] = run.Deployment.ToString(),
        ["deploymentName"] = run.DeploymentName,
        ["namespace"] = run.Namespace,
        ["pod"] = run.Pod.ToString(),
        ["podName"] = run.PodName,
        ["node"] = run.Node,
        ["product"] = run.Product.Name,
        ["gpus"] = run.Gpus,
        ["windowStart"] = Stamp(from),
        ["windowEnd"] = Stamp(to),
        ["priceVersion"] = run.PriceVersion.Value,
        ["perGpuHourNanos"] = run.PerGpuHour.Nanos,
    };

    private static string Key(DateTimeOffset time) => time.ToString("yyyyMMdd'T'HHmmss.ffffff'Z'", CultureInfo.InvariantCulture);

    private static string Stamp(DateTimeOffset time) => time.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);

    private static string Seconds(TimeSpan span)
        => ((decimal)span.Ticks / TimeSpan.TicksPerSecond).ToString("0.######", CultureInfo.InvariantCulture);
}
