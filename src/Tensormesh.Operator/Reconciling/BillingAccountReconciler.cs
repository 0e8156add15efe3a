using System.Collections.Concurrent;
using Tensormesh.Billing;
using Tensormesh.Operator.Telemetry;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>Declares each BillingAccount to the ledger, and shows its standing.</summary>
internal sealed class BillingAccountReconciler(
    StatusWriter writer, ClusterView cluster, Accounts accounts, CreditPolicy policy, EventRecorder events, OperatorMetrics metrics, TimeProvider time)
{
    /// <summary>How often a standing that moves is shown anew.</summary>
    private static readonly TimeSpan Refresh = TimeSpan.FromSeconds(30);

    private readonly ConcurrentDictionary<string, bool> low = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, CardNotice> cards = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, RunwayBand> runways = new(StringComparer.Ordinal);

    public async Task<DateTimeOffset?> ReconcileAsync(string name, CancellationToken cancellation)
    {
        if (cluster.BillingAccounts.Find(name) is not { } account)
        {
            // The money stays in the ledger, and with it the account: a BillingAccount deleted by mistake is applied again and nothing is lost.
            if (low.TryRemove(name, out _)) CountLow();
            if (cards.TryRemove(name, out _)) CountCards();
            if (runways.TryRemove(name, out _)) CountRunways();
            return null;
        }

        var whole = new BillingAccount { Metadata = account.Metadata, Spec = Copy(account.Spec), Status = account.Status };
        Defaulting.Apply(whole);
        var errors = Validation.Validate(whole);
        if (errors.Count > 0)
        {
            await ReportAsync(account, [.. Invalid(string.Join("; ", errors))], null, cancellation).ConfigureAwait(false);
            return null;
        }

        var id = new AccountId(name);
        if (await ReadDeclaredAsync(id, PolicyOf(whole), cancellation).ConfigureAwait(false) is not { } standing) return time.GetUtcNow() + Refresh;
        var now = time.GetUtcNow();
        await ReportAsync(account, [.. Declared(standing, now)], standing, cancellation).ConfigureAwait(false);
        runways[name] = RunwayBands.Of(standing.Runway(now));
        CountRunways();
        await WatchLowBalanceAsync(account, standing, now, cancellation).ConfigureAwait(false);
        await WatchCardsAsync(account, standing, now, cancellation).ConfigureAwait(false);
        return standing.Intervals.Count > 0 ? now + Refresh : now + Decider.Resync;
    }

    /// <summary>Declares what the ledger does not say already: most looks are for money that moved, and only read.</summary>
    private async Task<Standing?> ReadDeclaredAsync(AccountId id, AccountPolicy policy, CancellationToken cancellation)
    {
        if (await accounts.ReadStandingAsync(id, cancellation).ConfigureAwait(false) is { } standing && standing.Policy == policy) return standing;
        await accounts.DeclareAsync(id, policy, cancellation).ConfigureAwait(false);
        return await accounts.ReadStandingAsync(id, cancellation).ConfigureAwait(false);
    }

    private static AccountPolicy PolicyOf(BillingAccount account) => new(
        account.Spec.DisplayName ?? account.Metadata.Name,
        Money.TryParse(account.Spec.LowBalanceAlert, out var alert) ? alert : null,
        Quantities.TryDuration(account.Spec.CardGracePeriod, out var grace) ? grace : null,
        account.Spec.TimeZone ?? "UTC");

    private IEnumerable<ConditionReport> Declared(Standing standing, DateTimeOffset now)
    {
        yield return new ConditionReport(ConditionTypes.Ready, true, ConditionReasons.Declared, "The ledger knows this account.");
        var card = standing.Cards.StateAt(now);
        yield return card switch
        {
            CardState.Valid => new ConditionReport("CardValid", true, card.ToString(), "A valid card is on file."),
            CardState.Expired or CardState.Declined or CardState.Missing => new ConditionReport("CardValid", false, card.ToString(), NoCard(standing, now)),
        };
    }

    private string NoCard(Standing standing, DateTimeOffset now)
    {
        const string Add = "add one under Billing > Payment Methods";
        if (standing.Intervals.Count == 0 || standing.CardGraceEndsAt(policy) is not { } ends) return $"No valid card is on file: nothing new can start; {Add}.";
        return ends > now
            ? $"No valid card is on file: nothing new can start, and what runs stops at {ends:yyyy-MM-dd HH:mm} UTC; {Add}."
            : $"No valid card is on file and the grace period is over: nothing runs; {Add}.";
    }

    private static IEnumerable<ConditionReport> Invalid(string message)
        => [new ConditionReport(ConditionTypes.Ready, false, ConditionReasons.InvalidSpec, message)];

    private async Task ReportAsync(BillingAccount account, IReadOnlyList<ConditionReport> conditions, Standing? standing, CancellationToken cancellation)
    {
        var now = time.GetUtcNow();
        var status = new BillingAccountStatus
        {
            ObservedGeneration = account.Metadata.Generation,
            Balance = standing is null ? account.Status?.Balance : (standing.Balance(now)).ToDecimalString(),
            Held = standing?.Held(now).ToDecimalString() ?? account.Status?.Held,
            BurnPerHour = standing?.BurnPerHour.ToDecimalString() ?? account.Status?.BurnPerHour,
            Runway = standing is null ? account.Status?.Runway : standing.Runway(now) is { } runway ? Quantities.Runway(runway) : null,
            Card = standing?.Cards.StateAt(now).ToString() ?? account.Status?.Card,
            Conditions = ConditionList.Merge(account.Status?.Conditions, conditions, account.Metadata.Generation, now),
        };
        await writer.WriteAsync(account, BillingAccount.PluralName, account.Status, status, cancellation).ConfigureAwait(false);
    }

    private async Task WatchLowBalanceAsync(BillingAccount account, Standing standing, DateTimeOffset now, CancellationToken cancellation)
    {
        var left = standing.Balance(now);
        var below = standing.Policy.LowBalanceAlert is { } alert && left < alert;
        var was = low.TryGetValue(account.Metadata.Name, out var before) && before;
        low[account.Metadata.Name] = below;
        CountLow();
        if (!below || was) return;
        await events.RecordAsync(
            account, warning: true, "LowBalance", $"The balance of {left} is below the alert of {standing.Policy.LowBalanceAlert}: add balance under Billing > Overview.", cancellation).ConfigureAwait(false);
    }

    private void CountLow() => metrics.AccountsLow.Set(low.Values.Count(below => below));

    private async Task WatchCardsAsync(BillingAccount account, Standing standing, DateTimeOffset now, CancellationToken cancellation)
    {
        var name = account.Metadata.Name;
        CardNotice? before = cards.TryGetValue(name, out var known) ? known : null;
        var notice = CardNotices.Of(standing.Cards, now);
        cards[name] = notice;
        CountCards();
        if (!CardNotices.IsNews(before, notice)) return;
        var (reason, message) = notice switch
        {
            CardNotice.Valid => ("CardValid", "A valid card is on file."),
            CardNotice.Declined => ("CardDeclined", NoCard(standing, now)),
            CardNotice.Expired => ("CardExpired", NoCard(standing, now)),
            CardNotice.Missing => ("CardMissing", NoCard(standing, now)),
            CardNotice.ExpiresInAMonth or CardNotice.ExpiresInAWeek or CardNotice.ExpiresInADay => ("CardExpiring", Expiring(standing)),
        };
        await events.RecordAsync(account, warning: notice != CardNotice.Valid, reason, message, cancellation).ConfigureAwait(false);
    }

    private string Expiring(Standing standing)
    {
        var card = standing.Cards.LastToExpire!;
        return $"{card.Brand} ending {card.Last4}, the last valid card, is no longer valid from {standing.Cards.InvalidFrom:yyyy-MM-dd HH:mm} UTC on: from then nothing new can start, "
            + $"and what runs stops at {standing.CardGraceEndsAt(policy):yyyy-MM-dd HH:mm} UTC; add another under Billing > Payment Methods.";
    }

    private void CountCards()
    {
        var counts = cards.Values.CountBy(notice => notice).ToDictionary();
        foreach (var notice in Enum.GetValues<CardNotice>()) metrics.AccountsByCard.WithLabels(notice.ToString()).Set(counts.GetValueOrDefault(notice));
    }

    private void CountRunways()
    {
        var counts = runways.Values.CountBy(band => band).ToDictionary();
        foreach (var band in Enum.GetValues<RunwayBand>()) metrics.AccountsByRunway.WithLabels(band.ToString()).Set(counts.GetValueOrDefault(band));
    }

    private static BillingAccountSpec Copy(BillingAccountSpec spec) => new()
    {
        DisplayName = spec.DisplayName,
        LowBalanceAlert = spec.LowBalanceAlert,
        CardGracePeriod = spec.CardGracePeriod,
        TimeZone = spec.TimeZone,
    };
}
