using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>What moves money in, and what customers do to their cards and use of serverless models. All of it may come twice.</summary>
internal sealed class MoneyActs
{
    private readonly Stage stage;
    private readonly PaperBank bank;
    private readonly PaymentMethods cards;
    private readonly TopUps topUps;
    private readonly Ledger ledger;
    private readonly TokenMeter tokens;
    private readonly TokenPrice tokenPrice;
    private readonly List<Payment> payments = [];
    private readonly List<UsageEvent> used = [];
    private readonly Dictionary<AccountId, TokenTotals> totals = [];
    private int keys;

    public MoneyActs(Stage stage, PaperBank bank, TokenPrice tokenPrice)
    {
        (this.stage, this.bank, this.tokenPrice) = (stage, bank, tokenPrice);
        var time = stage.World.Time;
        (cards, topUps) = (new(stage.Database, bank, time), new(stage.Database, bank, time));
        (ledger, tokens) = (new(stage.Database), new(stage.Database, time));
    }

    public IEnumerable<Act> All =>
    [
        new(6, "grant", () => GrantAsync(stage.Pick(stage.Accounts))), new(5, "top up", TopUpAsync), new(3, "pay again", PayAgainAsync), new(4, "card", CardAsync),
        new(5, "tokens", UseTokensAsync),
    ];

    /// <summary>What customers asked to pay, each payment once, however often it was tried.</summary>
    public Money Asked(AccountId account) => payments.Where(payment => payment.Account == account).Aggregate(Money.Zero, (sum, payment) => sum + payment.Amount);

    public async Task OpenAsync(AccountId account)
    {
        await new Accounts(stage.Database).DeclareAsync(account, new AccountPolicy(account.Value, null, Stage.CardGrace, "UTC"), stage.Cancellation);
        await cards.AttachAsync(account, stage.OneIn(4) ? PaperBank.ThisMonth : PaperBank.LongLived, stage.Cancellation);
        if (stage.OneIn(3)) await cards.AttachAsync(account, PaperBank.Declining, stage.Cancellation);
    }

    public async Task GrantAsync(AccountId account)
    {
        var grant = Movements.CreditGrant(account, new Money(stage.Chance.NextInt64(1, 12 * Money.NanosPerUnit)), $"g{++keys}", "simulation", "a story");
        for (var times = stage.Chance.Next(1, 3); times > 0; times--) await ledger.PostAsync(grant, stage.Cancellation);
        stage.Tell($"  {account} is granted {grant.Entries[1].Amount.ToDecimalString()}");
        await AuditAsync();
    }

    /// <summary>Whoever has no answer asks again; and there is money for tokens that nobody could pay.</summary>
    public async Task FinishAsync()
    {
        foreach (var payment in payments) await topUps.ChargeAsync(payment.Account, payment.Amount, payment.Card, payment.Key, stage.Cancellation);
        foreach (var account in stage.Accounts)
        {
            await ledger.PostAsync(Movements.CreditGrant(account, Money.FromUnits(100_000), "last", "simulation", "a story"), stage.Cancellation);
        }

        await AuditAsync();
    }

    private async Task TopUpAsync()
    {
        var account = stage.Pick(stage.Accounts);
        if (await cards.ListAsync(account, stage.Cancellation) is not { Count: > 0 } there) return;
        var amount = new Money(stage.Chance.Next(100, 900) * (Money.NanosPerUnit / 100));
        payments.Add(new(account, amount, stage.Pick(there).PaymentMethodId, $"p{++keys}"));
        await PayAsync(payments[^1]);
    }

    /// <summary>An answer that was lost, or that nobody waited for, is asked for again with the same key: a payment moves money once.</summary>
    private Task PayAgainAsync() => payments.Count == 0 ? Task.CompletedTask : PayAsync(stage.Pick(payments));

    private async Task PayAsync(Payment payment)
    {
        bank.NextAnswerIsLost = stage.OneIn(4);
        if (stage.OneIn(4)) stage.Mortality.DieAfter(stage.Chance.Next(0, 2));
        var mode = stage.OneIn(2) ? ChargeMode.OnSession : ChargeMode.OffSession;
        var key = stage.Flaw == Flaw.PaysUnderANewKey ? $"{payment.Key}-{++keys}" : payment.Key;
        var result = "the server died";
        try
        {
            result = (await topUps.ChargeAsync(payment.Account, payment.Amount, payment.Card, key, stage.Cancellation, mode)).GetType().Name;
        }
        catch (DiedException)
        {
        }

        // With nobody there to ask, a card that is refused is none any more.
        if (payment.Card == PaperBank.Declining) stage.CardLosses.Add(stage.World.Now);
        bank.NextAnswerIsLost = false;
        stage.Mortality.Spare();
        stage.Tell($"  {payment.Account} pays {payment.Amount.ToDecimalString()} by {payment.Card} ({payment.Key}): {result}");
        stage.Count($"payment: {result}");
        await AuditAsync();
    }

    private async Task CardAsync()
    {
        var account = stage.Pick(stage.Accounts);
        var there = await cards.ListAsync(account, stage.Cancellation) ?? [];
        if (there.Count > 0 && stage.OneIn(3))
        {
            var card = stage.Pick(there).PaymentMethodId;
            stage.CardLosses.Add(stage.World.Now);
            stage.Tell($"  {account} removes {card}: {await cards.DetachAsync(account, card, stage.Cancellation)}");
        }
        else
        {
            var card = stage.Pick<string>([PaperBank.LongLived, PaperBank.ThisMonth, PaperBank.Declining]);
            stage.Tell($"  {account} adds {card}: {await cards.AttachAsync(account, card, stage.Cancellation)}");
        }

        await AuditAsync();
    }

    /// <summary>New usage, or usage that was told before.</summary>
    private async Task UseTokensAsync()
    {
        var again = used.Count > 0 && stage.OneIn(3);
        var one = again ? stage.Pick(used) : new UsageEvent(
            $"/{stage.Seed}", $"u{++keys}", stage.Pick(stage.Accounts), tokenPrice.Model, stage.World.Now, stage.Chance.Next(100, 200_000), stage.Chance.Next(0, 100),
            stage.Chance.Next(0, 50_000));
        await tokens.IngestAsync([one], stage.Cancellation);
        stage.Tell($"  {one.Account} used {one.Input}, {one.Cached} and {one.Output} tokens ({one.Id})");
        if (!again)
        {
            used.Add(one);
            var total = totals.GetValueOrDefault(one.Account) + new TokenTotals(one.Input, one.Cached, one.Output);
            totals[one.Account] = total;
            stage.Auditor.TokensCost[one.Account.Value] = Cost(total);
        }

        await AuditAsync();
    }

    /// <summary>Of a running total: the price does not change in a story.</summary>
    private long Cost(TokenTotals total) => (long)(((Int128)(total.Input - total.Cached) * tokenPrice.InputPerMillion.Nanos
        + (Int128)total.Cached * tokenPrice.CachedPerMillion.Nanos + (Int128)total.Output * tokenPrice.OutputPerMillion.Nanos) / 1_000_000);

    private Task AuditAsync() => stage.Auditor.AfterAsync(new Effect.Customer(), stage.Cancellation);

    private sealed record Payment(AccountId Account, Money Amount, string Card, string Key);
}
