using Npgsql;

namespace Tensormesh.Billing;

/// <summary>One posting of a customer, in the order of the ledger.</summary>
/// <param name="Amount">Positive: money in.</param>
/// <param name="ExpiresAt">Of a grant: when what is left of it goes back.</param>
/// <param name="Corrects">The position of what it takes back.</param>
internal sealed record CreditPosting(
    long Position, MovementType Type, Money Amount, DateTimeOffset EffectiveAt, DateTimeOffset? ExpiresAt = null, long? Corrects = null);

/// <summary>
/// Which money is left, as a pure function of a customer's postings. Usage takes grants before paid money, and of the grants the one that
/// expires soonest; what a card takes back takes paid money first. What usage gives back goes to where usage took it from, the last taken
/// first; of a grant that has expired meanwhile it becomes paid money.
/// </summary>
internal sealed class MoneyLeft
{
    public sealed record Grant(long Position, DateTimeOffset? ExpiresAt, Money Left, Money Used);

    /// <summary>In the order in which they are used.</summary>
    private readonly List<Grant> grants = [];

    public Money Paid { get; private set; }

    public IReadOnlyList<Grant> Grants => grants;

    public Money Total => grants.Aggregate(Paid, (sum, grant) => sum + grant.Left);

    public static MoneyLeft Of(IEnumerable<CreditPosting> postings)
    {
        var left = new MoneyLeft();
        foreach (var posting in postings) left.Apply(posting);
        return left;
    }

    public void Apply(CreditPosting posting)
    {
        switch (posting.Type)
        {
            case MovementType.CreditGrant:
                grants.Add(new(posting.Position, posting.ExpiresAt, posting.Amount, Money.Zero));
                grants.Sort((one, other) => (one.ExpiresAt ?? DateTimeOffset.MaxValue, one.Position).CompareTo((other.ExpiresAt ?? DateTimeOffset.MaxValue, other.Position)));
                break;
            case MovementType.GpuUsageCorrection or MovementType.GpuFaultCredit:
                GiveBack(posting.Amount, posting.EffectiveAt);
                break;
            case MovementType.CreditExpiry or MovementType.Reversal when posting.Amount < Money.Zero:
                TakeFirstFrom(posting.Corrects, -posting.Amount);
                break;
            case MovementType.Refund or MovementType.Dispute:
                TakePaidFirst(-posting.Amount);
                break;
            case MovementType.TopUp or MovementType.DisputeReversal or MovementType.Reversal or MovementType.CreditExpiry:
            case MovementType.GpuUsage or MovementType.ServerlessUsage or MovementType.Adjustment or MovementType.Uncollected or MovementType.WriteOff:
                if (posting.Amount >= Money.Zero) Paid += posting.Amount;
                else Use(-posting.Amount, posting.EffectiveAt);
                break;
        }
    }

    /// <summary>Grants that have not expired, then paid money, and only then what a grant that has expired still holds.</summary>
    private void Use(Money amount, DateTimeOffset at)
    {
        amount -= Draw(amount, grant => grant.ExpiresAt is not { } until || at <= until);
        var paid = Money.Min(amount, Paid);
        Paid -= paid;
        Draw(amount - paid, _ => true);
    }

    private void TakePaidFirst(Money amount)
    {
        var paid = Money.Min(amount, Paid);
        Paid -= paid;
        Draw(amount - paid, _ => true);
    }

    private void TakeFirstFrom(long? position, Money amount) => TakePaidFirst(amount - Draw(amount, grant => grant.Position == position));

    private Money Draw(Money amount, Func<Grant, bool> from)
    {
        var drawn = Money.Zero;
        for (var i = 0; i < grants.Count; i++)
        {
            if (!from(grants[i])) continue;
            var taken = Money.Min(amount - drawn, grants[i].Left);
            grants[i] = grants[i] with { Left = grants[i].Left - taken, Used = grants[i].Used + taken };
            drawn += taken;
        }

        return drawn;
    }

    private void GiveBack(Money amount, DateTimeOffset at)
    {
        for (var i = grants.Count - 1; i >= 0; i--)
        {
            if (grants[i].ExpiresAt is { } until && at > until) continue;
            var back = Money.Min(amount, grants[i].Used);
            grants[i] = grants[i] with { Left = grants[i].Left + back, Used = grants[i].Used - back };
            amount -= back;
        }

        Paid += amount;
    }

    /// <summary>Under the account's lock, or of what is seen without it. Holds as many rows as the account had grants.</summary>
    public static async Task<MoneyLeft> ReadAsync(NpgsqlConnection connection, AccountId account, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(SqlText.ListCreditPostings, connection)
        {
            Parameters = { Transact.Value(Movements.Customer(account)) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var left = new MoneyLeft();
        while (await reader.ReadAsync(cancellation)) left.Apply(new(
            reader.GetInt64(0), Enum.Parse<MovementType>(reader.GetString(1)), new(reader.GetInt64(2)), reader.GetFieldValue<DateTimeOffset>(3),
            reader.IsDBNull(4) ? null : reader.GetFieldValue<DateTimeOffset>(4), reader.IsDBNull(5) ? null : reader.GetInt64(5)));
        return left;
    }
}
