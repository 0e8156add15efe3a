using System.Globalization;

namespace Tensormesh.Billing;

/// <summary>What one request to a serverless model used, as an inference server reports it.</summary>
/// <param name="Source">With <paramref name="Id"/> its identity, as CloudEvents has it.</param>
/// <param name="Input">Tokens of the prompt, those from the cache too.</param>
/// <param name="Cached">Which of those were served from the KV cache.</param>
public sealed record UsageEvent(
    string Source, string Id, AccountId Account, string Model, DateTimeOffset At, long Input, long Cached, long Output, string? RequestId = null,
    string? ApiKeyId = null);

/// <summary>Why an event is not counted. The names are told.</summary>
public enum UsageRefusal
{
    /// <summary>It is no CloudEvent of ours, or lacks something.</summary>
    Unreadable,
    CachedAboveInput,
    /// <summary>Neither input nor output: usage that was lost on the way, such as that of a streamed answer, must not become a charge of nothing.</summary>
    NoTokens,
    TooManyTokens,
    FromTheFuture,
    TooOld,
    AccountUnknown,
    /// <summary>Another event has its source and id.</summary>
    IdReused,
}

/// <summary>What became of one event. Once it is told, it is on disk.</summary>
public abstract record UsageOutcome
{
    private UsageOutcome() { }

    public sealed record Accepted : UsageOutcome
    {
        public static readonly Accepted Once = new();
    }

    /// <summary>It was counted before, and is not again.</summary>
    public sealed record Duplicate : UsageOutcome
    {
        public static readonly Duplicate Known = new();
    }

    /// <param name="Detail">What is wrong and what to do.</param>
    public sealed record Rejected(UsageRefusal Reason, string Detail) : UsageOutcome;
}

/// <summary>What an event must be to be counted, as far as that can be told from the event and the time.</summary>
public static class UsageRule
{
    public const int LongestText = 512;

    /// <summary>No context is that long: more is a mistake of whoever counts, and would be one of money.</summary>
    public const long MostTokens = 1_000_000_000;

    /// <summary>Clocks of inference servers may be ahead by this much.</summary>
    public static readonly TimeSpan ClockSkew = TimeSpan.FromMinutes(5);

    /// <summary>How late an event may come.</summary>
    public static readonly TimeSpan Retention = TimeSpan.FromDays(35);

    /// <summary>How long an event is kept to know it again: longer than it may come, by what clocks differ.</summary>
    public static readonly TimeSpan Kept = Retention + TimeSpan.FromDays(2);

    /// <returns>Null: it may be counted.</returns>
    public static UsageOutcome.Rejected? Refuse(UsageEvent usage, DateTimeOffset now)
    {
        if (usage.Input < 0 || usage.Output < 0 || usage.Cached < 0)
        {
            return new(UsageRefusal.Unreadable, "Tokens are counted from 0 up: a count below zero is a mistake of whoever reports it.");
        }

        if (usage.Cached > usage.Input)
        {
            return new(UsageRefusal.CachedAboveInput, Text(
                $"cachedTokens is {usage.Cached} and inputTokens is {usage.Input}: cached tokens are part of the input. Report the whole prompt as inputTokens."));
        }

        if (usage.Input == 0 && usage.Output == 0)
        {
            return new(UsageRefusal.NoTokens,
                "It has neither input nor output tokens. If the answer was streamed, report the usage of its last chunk; if nothing was used, send no event.");
        }

        if (usage.Input > MostTokens || usage.Output > MostTokens)
        {
            return new(UsageRefusal.TooManyTokens, Text($"One event has at most {MostTokens} input and {MostTokens} output tokens."));
        }

        if (usage.At > now + ClockSkew)
        {
            return new(UsageRefusal.FromTheFuture, Text(
                $"Its time is {usage.At:yyyy-MM-dd'T'HH:mm:ss'Z'}, and it is {now:yyyy-MM-dd'T'HH:mm:ss'Z'} here: set the clock of whoever reports it, and send it again with the right time."));
        }

        return usage.At > now - Retention ? null : new(UsageRefusal.TooOld, Text(
            $"Its time is {usage.At:yyyy-MM-dd'T'HH:mm:ss'Z'}, and usage is taken for {Retention.TotalDays:0} days: have an administrator post an adjustment instead."));
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
