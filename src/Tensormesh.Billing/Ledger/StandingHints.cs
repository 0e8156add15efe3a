using System.Runtime.CompilerServices;
using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Sends the NOTIFY of what is already committed. A transaction that notifies commits under one lock of the whole server, held until
/// it is on disk, so that notifying from the posting transaction let one post through for each flush. Here the hints of all posts
/// that committed meanwhile leave together, in a transaction that writes nothing and so waits for no flush.
/// </summary>
internal sealed class StandingHints
{
    /// <summary>Between one sending and the next: a first hint leaves at once, and a thousand posts a second are a hundred hints.</summary>
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(10);

    /// <summary>How long a hint may wait that many more may follow.</summary>
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(1);

    private static readonly ConditionalWeakTable<NpgsqlDataSource, StandingHints> Senders = [];

    private readonly NpgsqlDataSource dataSource;
    private readonly Lock gate = new();
    private readonly HashSet<string> waiting = new(StringComparer.Ordinal);
    private readonly HashSet<string> soon = new(StringComparer.Ordinal);
    private bool sending;

    private StandingHints(NpgsqlDataSource dataSource) => this.dataSource = dataSource;

    /// <summary>The one sender of a database: whatever its services have to tell leaves together.</summary>
    public static StandingHints Of(NpgsqlDataSource dataSource) => Senders.GetValue(dataSource, source => new StandingHints(source));

    public void Tell(AccountId account) => Tell([account.Value]);

    /// <summary>Returns at once. What cannot be sent is lost: that delays a decision until the resync.</summary>
    public void Tell(IEnumerable<string> accounts)
    {
        lock (gate)
        {
            waiting.UnionWith(accounts);
            if (sending || waiting.Count == 0) return;
            sending = true;
        }

        _ = Task.Run(SendAsync);
    }

    /// <summary>As <see cref="Tell(IEnumerable{string})"/>, within a second: for what is changed many times in one, and decides nothing by itself.</summary>
    public void TellSoon(IEnumerable<string> accounts)
    {
        lock (gate)
        {
            var first = soon.Count == 0;
            soon.UnionWith(accounts);
            if (!first || soon.Count == 0) return;
        }

        _ = Task.Run(async () =>
        {
            await Task.Delay(Soon);
            string[] due;
            lock (gate)
            {
                due = [.. soon];
                soon.Clear();
            }

            Tell(due);
        });
    }

    private async Task SendAsync()
    {
        while (true)
        {
            string[] accounts;
            lock (gate)
            {
                accounts = [.. waiting];
                waiting.Clear();
                sending = accounts.Length > 0;
                if (!sending) return;
            }

            try
            {
                await Transact.UseAsync(dataSource, async connection =>
                {
                    await using var batch = new NpgsqlBatch(connection) { BatchCommands = { StandingChannel.Notify(accounts) } };
                    return await batch.ExecuteNonQueryAsync();
                }, CancellationToken.None);
            }
            catch (Exception lost) when (lost is NpgsqlException or ObjectDisposedException or TimeoutException)
            {
                // The listener looks at everything whenever its own connection comes back.
            }

            await Task.Delay(Pause);
        }
    }
}
