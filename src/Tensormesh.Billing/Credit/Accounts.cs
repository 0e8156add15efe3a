using Npgsql;
using NpgsqlTypes;

namespace Tensormesh.Billing;

/// <summary>Accounts as the ledger knows them, their policies and their standings.</summary>
public sealed class Accounts(NpgsqlDataSource dataSource, OperatorEpoch? epoch = null)
{
    private readonly NpgsqlDataSource dataSource = dataSource;
    private readonly StandingHints hints = StandingHints.Of(dataSource);
    private readonly OperatorEpoch? epoch = epoch;

    /// <summary>Opens the account if new, and records its policy. Called for every BillingAccount; idempotent.</summary>
    /// <exception cref="ArgumentException">The time zone is not known to Postgres.</exception>
    public async Task DeclareAsync(AccountId account, AccountPolicy policy, CancellationToken cancellation)
    {
        try
        {
            var changed = await Transact.RunAsync(dataSource, async connection =>
            {
                await using var batch = new NpgsqlBatch(connection)
                {
                    BatchCommands =
                    {
                        // Refuses a time zone that does not exist, which every later report would fail on.
                        Transact.Command("select now() at time zone $1", Transact.Value(policy.TimeZone)),
                        Transact.Command(
                            SqlText.DeclareAccount,
                            Transact.Value(account.Value),
                            Transact.Value(policy.DisplayName),
                            Transact.Value(policy.LowBalanceAlert?.Nanos, NpgsqlDbType.Bigint),
                            Transact.Value((long?)policy.CardGracePeriod?.TotalSeconds, NpgsqlDbType.Bigint),
                            Transact.Value(policy.TimeZone)),
                    },
                };
                if (epoch is not null) batch.BatchCommands.Add(epoch.Check());
                await using var reader = await batch.ExecuteReaderAsync(cancellation);
                await reader.NextResultAsync(cancellation);
                var declared = await reader.ReadAsync(cancellation);
                // An epoch that is over is an error of the last statement, which is met only when it is read.
                await reader.NextResultAsync(cancellation);
                return declared;
            }, cancellation);
            if (changed) hints.Tell(account);
        }
        catch (PostgresException error) when (error.SqlState == PostgresErrorCodes.InvalidParameterValue)
        {
            throw new ArgumentException(
                $"account {account}: '{policy.TimeZone}' is not a time zone: use a name such as Europe/Berlin", nameof(policy), error);
        }
    }

    /// <summary>One round trip. Null when the ledger knows no such account.</summary>
    public async Task<Standing?> ReadStandingAsync(AccountId account, CancellationToken cancellation)
        => (await ReadAsync(account, null, cancellation))?.Account;

    /// <summary>One round trip. Null when the ledger knows no such account.</summary>
    public Task<DeploymentStanding?> ReadStandingAsync(AccountId account, DeploymentId deployment, CancellationToken cancellation)
        => ReadAsync(account, deployment, cancellation);

    /// <summary>
    /// The standing, and the deployment's runs that have not ended, whoever pays for them: what a look at a deployment reads, in one round
    /// trip.
    /// </summary>
    /// <param name="account">Null when nobody pays: then there is no standing to read.</param>
    public Task<(DeploymentStanding? Standing, IReadOnlyList<OpenRun> Runs)> ReadWithRunsAsync(
        AccountId? account, DeploymentId deployment, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            if (account is { } payer) batch.BatchCommands.Add(StandingReader.Command(payer, deployment));
            batch.BatchCommands.Add(RunIntervals.OpenCommand(deployment));
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            DeploymentStanding? standing = null;
            if (account is { } read)
            {
                standing = await StandingReader.ReadAsync(reader, read, deployment, cancellation);
                await reader.NextResultAsync(cancellation);
            }

            return (standing, await RunIntervals.ReadOpenAsync(reader, cancellation));
        }, cancellation);

    /// <summary>Standings of accounts in the order of their names, for people who look for one.</summary>
    /// <param name="text">Part of the name or display name, in any case; null: all.</param>
    /// <param name="after">The last account of the page before; null: from the first.</param>
    /// <param name="limit">1 to 101.</param>
    public Task<IReadOnlyList<Standing>> SearchAsync(string? text, AccountId? after, int limit, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, 101);
        return Transact.UseAsync<IReadOnlyList<Standing>>(dataSource, async connection =>
        {
            var names = new List<AccountId>();
            await using (var list = new NpgsqlCommand(SqlText.ListAccounts, connection)
            {
                Parameters =
                {
                    Transact.Value(string.IsNullOrWhiteSpace(text) ? null : text.Trim(), NpgsqlDbType.Text), Transact.Value(after?.Value, NpgsqlDbType.Text),
                    Transact.Value(limit),
                },
            })
            await using (var listed = await list.ExecuteReaderAsync(cancellation))
            {
                while (await listed.ReadAsync(cancellation)) names.Add(new(listed.GetString(0)));
            }

            if (names.Count == 0) return [];
            await using var batch = new NpgsqlBatch(connection);
            foreach (var name in names) batch.BatchCommands.Add(StandingReader.Command(name, null));
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            var standings = new List<Standing>();
            foreach (var name in names)
            {
                if (await StandingReader.ReadAsync(reader, name, default, cancellation) is { } read) standings.Add(read.Account);
                await reader.NextResultAsync(cancellation);
            }

            return standings;
        }, cancellation);
    }

    public Task<IReadOnlyList<AccountId>> ListAsync(CancellationToken cancellation)
        => Transact.UseAsync<IReadOnlyList<AccountId>>(dataSource, async connection =>
        {
            await using var command = new NpgsqlCommand("select id from account order by id", connection);
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            var accounts = new List<AccountId>();
            while (await reader.ReadAsync(cancellation)) accounts.Add(new(reader.GetString(0)));
            return accounts;
        }, cancellation);

    private Task<DeploymentStanding?> ReadAsync(AccountId account, DeploymentId? deployment, CancellationToken cancellation)
        => Transact.UseAsync(dataSource, async connection =>
        {
            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(StandingReader.Command(account, deployment));
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            return await StandingReader.ReadAsync(reader, account, deployment ?? default, cancellation);
        }, cancellation);
}
