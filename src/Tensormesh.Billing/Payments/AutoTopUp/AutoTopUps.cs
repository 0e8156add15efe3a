using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json.Nodes;
using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>What one round did for one account.</summary>
/// <param name="Outcome">Null where the payment company did not say: the attempt is gone on with later.</param>
public sealed record AutoTopUpResult(AccountId Account, Money Amount, AutoTopUpOutcome? Outcome, string? Message);

/// <param name="Failures">One for each account that could not be decided on or recorded; the others were.</param>
public sealed record AutoTopUpRound(IReadOnlyList<AutoTopUpResult> Results, IReadOnlyList<Exception> Failures);

/// <summary>How many accounts have automatic top-up, and of how many it is disabled.</summary>
public sealed record AutoTopUpCounts(long On, long Disabled);

/// <summary>
/// Adds money to accounts whose balance falls below what their owner said. Any number of processes may run rounds at once: an attempt is
/// a row before its card is charged, the database has one such row at most for each account, and the row's number is the top-up's
/// idempotency key, so that whoever goes on after a crash charges once.
/// </summary>
public sealed class AutoTopUps(NpgsqlDataSource dataSource, IPaymentProvider provider, TimeProvider time)
{
    /// <summary>How long an attempt is left to whoever claimed it; then another process goes on with it.</summary>
    public static readonly TimeSpan Claim = TimeSpan.FromMinutes(1);

    /// <summary>Cards that one process charges at the same time.</summary>
    private const int AtOnce = 8;

    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly TimeProvider time = time;
    private readonly TopUps topUps = new(dataSource, provider, time);

    /// <summary>Turns it on, or changes it; what was disabled begins anew. What was charged already counts towards the new caps.</summary>
    /// <param name="plan">One that <see cref="AutoTopUpRule.Refuse"/> finds nothing wrong with.</param>
    /// <param name="by">Who asked for it, which is noted with it.</param>
    /// <returns>False when there is no such account.</returns>
    public Task<bool> SaveAsync(AccountId account, AutoTopUpPlan plan, CancellationToken cancellation, Actor? by = null)
    {
        if (AutoTopUpRule.Refuse(plan) is var (field, message)) throw new ArgumentException($"{field}: {message}", nameof(plan));
        return Transact.RunAsync(dataSource, async connection =>
        {
            await using var save = new NpgsqlCommand(
                """
                insert into auto_top_up (account, threshold_nanos, amount_nanos, daily_cap_nanos, monthly_cap_nanos, changed_at)
                select id, $2, $3, $4, $5, $6 from account where id = $1
                on conflict (account) do update set threshold_nanos = $2, amount_nanos = $3, daily_cap_nanos = $4, monthly_cap_nanos = $5,
                  declines_in_a_row = 0, retry_at = null, disabled_at = null, disabled_because = null, changed_at = $6
                """, connection)
            {
                Parameters =
                {
                    Transact.Value(account.Value), Transact.Value(plan.Threshold.Nanos), Transact.Value(plan.Amount.Nanos),
                    Transact.Value(plan.DailyCap.Nanos), Transact.Value(plan.MonthlyCap.Nanos), Transact.Value(time.GetUtcNow().ToLedgerTime()),
                },
            };
            if (await save.ExecuteNonQueryAsync(cancellation) != 1) return false;
            var details = new JsonObject
            {
                ["threshold"] = plan.Threshold.ToDecimalString(),
                ["amount"] = plan.Amount.ToDecimalString(),
                ["dailyCap"] = plan.DailyCap.ToDecimalString(),
                ["monthlyCap"] = plan.MonthlyCap.ToDecimalString(),
            };
            await AuditLog.NoteAsync(connection, by, AuditAction.AutoTopUpSaved, account, null, details, cancellation);
            return true;
        }, cancellation);
    }

    /// <summary>Turns it off. An attempt that is under way is still ended: its card may have been charged.</summary>
    /// <inheritdoc cref="SaveAsync" path="/param[@name='by']"/>
    public Task RemoveAsync(AccountId account, CancellationToken cancellation, Actor? by = null) => Transact.RunAsync(dataSource, async connection =>
    {
        await using var remove = new NpgsqlCommand("delete from auto_top_up where account = $1", connection) { Parameters = { Transact.Value(account.Value) } };
        if (await remove.ExecuteNonQueryAsync(cancellation) == 0) return false;
        await AuditLog.NoteAsync(connection, by, AuditAction.AutoTopUpRemoved, account, null, [], cancellation);
        return true;
    }, cancellation);

    /// <summary>Null when there is no such account.</summary>
    public Task<(AutoTopUp Settings, AutoTopUpVerdict Verdict)?> ReadAsync(AccountId account, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, connection => ReadAsync(connection, account, isLocked: false, cancellation), cancellation);

    public Task<AutoTopUpCounts> CountAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        await using var count = new NpgsqlCommand("select count(*), count(disabled_at) from auto_top_up", connection);
        await using var reader = await count.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        return new AutoTopUpCounts(reader.GetInt64(0), reader.GetInt64(1));
    }, cancellation);

    /// <summary>
    /// Goes on with attempts that nobody is at work on, and begins one for each account that needs it. From the first byte sent to the
    /// payment company on, nothing stops an attempt: what is charged must be credited.
    /// </summary>
    public async Task<AutoTopUpRound> RunAsync(CancellationToken cancellation)
    {
        var (results, failures) = (new ConcurrentBag<AutoTopUpResult>(), new ConcurrentBag<Exception>());
        await EachAsync(await ClaimAsync(cancellation), attempt => DriveAsync(attempt, cancellation));
        await EachAsync(await FindLowAsync(cancellation), async account =>
            await BeginAsync(account, cancellation) is { } attempt ? await DriveAsync(attempt, cancellation) : null);
        return new([.. results], [.. failures]);

        // What is wrong with one account keeps nobody else's money away.
        Task EachAsync<T>(IReadOnlyList<T> all, Func<T, Task<AutoTopUpResult?>> work) => Parallel.ForEachAsync(
            all, new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellation }, async (one, _) =>
            {
                try
                {
                    if (await work(one) is { } result) results.Add(result);
                }
                catch (Exception failure) when (failure is not OperationCanceledException)
                {
                    failures.Add(failure);
                }
            });
    }

    private sealed record Attempt(AccountId Account, int Number, Money Amount, string PaymentMethodId)
    {
        public string Key => string.Create(CultureInfo.InvariantCulture, $"auto/{Number}");
    }

    private DateTimeOffset Now => time.GetUtcNow().ToLedgerTime();

    private Task<List<AccountId>> FindLowAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        var now = Now;
        await using var find = new NpgsqlCommand(SqlText.FindLowBalances, connection)
        {
            Parameters = { Transact.Value(now), Transact.Value(now + AutoTopUpRule.LookAhead) },
        };
        await using var reader = await find.ExecuteReaderAsync(cancellation);
        var low = new List<AccountId>();
        while (await reader.ReadAsync(cancellation)) low.Add(new(reader.GetString(0)));
        return low;
    }, cancellation);

    /// <summary>Attempts whose process went away, or that the payment company left in doubt: from now on ours.</summary>
    private Task<List<Attempt>> ClaimAsync(CancellationToken cancellation) => Transact.UseAsync(dataSource, async connection =>
    {
        var now = Now;
        await using var claim = new NpgsqlCommand(
            """
            update auto_top_up_attempt set claimed_until = $2 where ended_at is null and claimed_until <= $1
            returning account, number, amount_nanos, payment_method_id
            """, connection)
        { Parameters = { Transact.Value(now), Transact.Value(now + Claim) } };
        await using var reader = await claim.ExecuteReaderAsync(cancellation);
        var claimed = new List<Attempt>();
        while (await reader.ReadAsync(cancellation)) claimed.Add(new(new(reader.GetString(0)), reader.GetInt32(1), new(reader.GetInt64(2)), reader.GetString(3)));
        return claimed;
    }, cancellation);

    /// <summary>Null when there is nothing to charge by now. Whoever holds the settings' row decides; the next sees what it did.</summary>
    private Task<Attempt?> BeginAsync(AccountId account, CancellationToken cancellation) => Transact.RunAsync<Attempt?>(dataSource, async connection =>
    {
        if (await ReadAsync(connection, account, isLocked: true, cancellation) is not { Verdict: AutoTopUpVerdict.Charge charge }) return null;
        var now = Now;
        await using var begin = new NpgsqlCommand(
            """
            insert into auto_top_up_attempt (account, number, amount_nanos, payment_method_id, begun_at, claimed_until)
            select $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5 from auto_top_up_attempt where account = $1
            returning number
            """, connection)
        {
            Parameters =
            {
                Transact.Value(account.Value), Transact.Value(charge.Amount.Nanos), Transact.Value(charge.PaymentMethodId), Transact.Value(now),
                Transact.Value(now + Claim),
            },
        };
        return new(account, (int)(await begin.ExecuteScalarAsync(cancellation))!, charge.Amount, charge.PaymentMethodId);
    }, cancellation);

    private async Task<AutoTopUpResult?> DriveAsync(Attempt attempt, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        TopUpResult result;
        try
        {
            result = await topUps.ChargeAsync(
                attempt.Account, attempt.Amount, attempt.PaymentMethodId, attempt.Key, CancellationToken.None, ChargeMode.OffSession);
        }
        catch (PaymentProviderException fault)
        {
            // A fault of ours, such as a wrong key: nothing is known of the charge, and nobody's card is at fault.
            return new(attempt.Account, attempt.Amount, null, fault.Message);
        }

        (AutoTopUpOutcome Outcome, string? Message)? end = result switch
        {
            TopUpResult.Credited or TopUpResult.AlreadyCredited => (AutoTopUpOutcome.Succeeded, null),
            TopUpResult.Declined declined => (AutoTopUpOutcome.Declined, declined.Message),
            TopUpResult.AuthenticationRequired => (
                AutoTopUpOutcome.AuthenticationRequired, "The bank asks the holder of the card to confirm the payment, who was not there."),
            TopUpResult.Refused refused => (AutoTopUpOutcome.Refused, refused.Message),
            TopUpResult.InDoubt => null,
            _ => throw new InvalidOperationException($"no end is known for {result}"),
        };
        if (end is not var (outcome, message)) return new(attempt.Account, attempt.Amount, null, ((TopUpResult.InDoubt)result).Reason);
        return await EndAsync(attempt, outcome, message) ? new(attempt.Account, attempt.Amount, outcome, message) : null;
    }

    /// <summary>False when another process ended it.</summary>
    private Task<bool> EndAsync(Attempt attempt, AutoTopUpOutcome outcome, string? message) => Transact.RunAsync(dataSource, async connection =>
    {
        var now = Now;
        // The settings before the attempt, as whoever begins one takes them.
        await using var read = new NpgsqlCommand("select declines_in_a_row from auto_top_up where account = $1 for no key update", connection)
        {
            Parameters = { Transact.Value(attempt.Account.Value) },
        };
        var declines = await read.ExecuteScalarAsync() as int?;
        await using var end = new NpgsqlCommand(
            "update auto_top_up_attempt set ended_at = $3, outcome = $4, message = $5 where account = $1 and number = $2 and ended_at is null", connection)
        {
            Parameters =
            {
                Transact.Value(attempt.Account.Value), Transact.Value(attempt.Number), Transact.Value(now), Transact.Value(outcome.ToString()),
                Transact.Value(message, NpgsqlDbType.Text),
            },
        };
        if (await end.ExecuteNonQueryAsync() == 0) return false;
        int? after = outcome switch
        {
            AutoTopUpOutcome.Succeeded => 0,
            AutoTopUpOutcome.Refused => declines,
            _ => declines + 1,
        };
        if (after is not { } strikes || strikes == declines) return true;
        var isOver = strikes >= AutoTopUpRule.MostDeclines;
        await using var strike = new NpgsqlCommand(
            "update auto_top_up set declines_in_a_row = $2, retry_at = $3, disabled_at = $4, disabled_because = $5 where account = $1 and disabled_at is null",
            connection)
        {
            Parameters =
            {
                Transact.Value(attempt.Account.Value), Transact.Value(strikes),
                Transact.Value(isOver || strikes == 0 ? null : now + AutoTopUpRule.WaitAfter(strikes), NpgsqlDbType.TimestampTz),
                Transact.Value(isOver ? now : null, NpgsqlDbType.TimestampTz),
                Transact.Value(isOver ? AutoTopUpRule.WhyDisabled(message) : null, NpgsqlDbType.Text),
            },
        };
        await strike.ExecuteNonQueryAsync();
        return true;
    }, CancellationToken.None);

    private async Task<(AutoTopUp Settings, AutoTopUpVerdict Verdict)?> ReadAsync(
        NpgsqlConnection connection, AccountId account, bool isLocked, CancellationToken cancellation)
    {
        var now = Now;
        await using var batch = new NpgsqlBatch(connection);
        // Statements of their own: each sees what was committed before it began, and the lock may have been waited for.
        if (isLocked) batch.BatchCommands.Add(Transact.Command("select from auto_top_up where account = $1 for no key update", Transact.Value(account.Value)));
        batch.BatchCommands.Add(Transact.Command(SqlText.ReadAutoTopUp, Transact.Value(account.Value), Transact.Value(now)));
        batch.BatchCommands.Add(StandingReader.Command(account, null));
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        if (isLocked) await reader.NextResultAsync(cancellation);
        if (!await reader.ReadAsync(cancellation)) return null;
        var settings = Settings(reader);
        await reader.NextResultAsync(cancellation);
        return await StandingReader.ReadAsync(reader, account, default, cancellation) is { } standing
            ? (settings, AutoTopUpRule.Decide(settings, standing.Account, now))
            : null;
    }

    private static AutoTopUp Settings(NpgsqlDataReader reader) => new(
        reader.IsDBNull(0) ? null : new(new(reader.GetInt64(0)), new(reader.GetInt64(1)), new(reader.GetInt64(2)), new(reader.GetInt64(3))),
        new(reader.GetInt64(7)), new(reader.GetInt64(8)), reader.GetBoolean(9),
        reader.IsDBNull(4) ? 0 : reader.GetInt32(4),
        reader.IsDBNull(5) ? null : reader.GetFieldValue<DateTimeOffset>(5),
        reader.IsDBNull(6) ? null : reader.GetString(6),
        reader.IsDBNull(10) ? null : new(
            new(reader.GetInt64(10)), reader.GetFieldValue<DateTimeOffset>(11),
            reader.IsDBNull(12) ? null : Enum.Parse<AutoTopUpOutcome>(reader.GetString(12)), reader.IsDBNull(13) ? null : reader.GetString(13)));
}
