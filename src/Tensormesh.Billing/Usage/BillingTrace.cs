using System.Diagnostics;

namespace Tensormesh.Billing;

/// <summary>Spans of the money core, for whoever listens (OpenTelemetry).</summary>
public static class BillingTrace
{
    public const string SourceName = "Tensormesh.Billing";

    internal static readonly ActivitySource Source = new(SourceName);

    /// <summary>That tokens were posted, as a span of the trace in which the last of them were accepted: from the request to the posting is one trace.</summary>
    internal static void TellSettled(AccountId account, Settlement settled)
    {
        if (settled.Tokens == Money.Zero || !ActivityContext.TryParse(settled.Traceparent, null, isRemote: true, out var accepted)) return;
        using var span = Source.StartActivity("post usage", ActivityKind.Internal, accepted);
        span?.SetTag("tensormesh.account", account.Value);
        span?.SetTag("tensormesh.transactions", settled.TokenTransactions);
        span?.SetTag("tensormesh.nanos", settled.Tokens.Nanos);
    }
}
