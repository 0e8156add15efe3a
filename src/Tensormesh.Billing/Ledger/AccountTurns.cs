using Npgsql;

namespace Tensormesh.Billing;

/// <summary>
/// Lets posts to one account take turns in this process instead of at the account's row lock. A lock is held until its commit is on disk,
/// so that posts one by one wait for a flush each; whatever came while one was under way goes on together, in one SQL transaction, and
/// each has its own answer. A post that meets no other goes alone and at once.
/// </summary>
internal sealed class AccountTurns(
    Func<Movement, CancellationToken, Task<PostResult>> postOne,
    Func<IReadOnlyList<Movement>, CancellationToken, Task<IReadOnlyList<PostResult>>> postMany)
{
    /// <summary>Posts that share a transaction at most: a bound on how long the others' answers take.</summary>
    public const int MaxTogether = 100;

    private sealed record Waiting(Movement Movement, CancellationToken Cancellation)
    {
        public TaskCompletionSource<PostResult> Answer { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    private readonly Lock gate = new();
    /// <summary>Accounts with a post under way, and what waits for each.</summary>
    private readonly Dictionary<string, Queue<Waiting>> underWay = new(StringComparer.Ordinal);

    public async Task<PostResult> PostAsync(Movement movement, CancellationToken cancellation)
    {
        var customer = movement.Entries.FirstOrDefault(
            entry => entry.LedgerAccount.StartsWith(Movements.CustomerPrefix, StringComparison.Ordinal))?.LedgerAccount;
        if (customer is null) return await postOne(movement, cancellation);

        Waiting? waiting = null;
        lock (gate)
        {
            if (underWay.TryGetValue(customer, out var others)) others.Enqueue(waiting = new Waiting(movement, cancellation));
            else underWay[customer] = [];
        }

        if (waiting is not null) return await waiting.Answer.Task.WaitAsync(cancellation);
        try
        {
            return await postOne(movement, cancellation);
        }
        finally
        {
            Next(customer);
        }
    }

    private void Next(string customer)
    {
        var turn = new List<Waiting>();
        lock (gate)
        {
            var waiting = underWay[customer];
            while (turn.Count < MaxTogether && waiting.TryDequeue(out var one)) turn.Add(one);
            if (turn.Count == 0) underWay.Remove(customer);
        }

        if (turn.Count > 0) _ = Task.Run(() => TakeTurnAsync(customer, turn));
    }

    private async Task TakeTurnAsync(string customer, List<Waiting> turn)
    {
        // Whoever gave up before its turn posts nothing; who gives up later may have posted, as with any commit that is under way.
        foreach (var gone in turn.Where(one => one.Cancellation.IsCancellationRequested)) gone.Answer.TrySetCanceled(gone.Cancellation);
        turn.RemoveAll(one => one.Answer.Task.IsCompleted);
        try
        {
            if (turn.Count == 0) return;
            var results = await postMany([.. turn.Select(one => one.Movement)], CancellationToken.None);
            for (var i = 0; i < turn.Count; i++) turn[i].Answer.TrySetResult(results[i]);
        }
        catch (PostgresException) when (turn.Count > 1)
        {
            // Something of one of them is an error to the server, which has put back all of them: the others must not fail with it.
            await Task.WhenAll(turn.Select(AloneAsync));
        }
        catch (Exception fault)
        {
            foreach (var one in turn) one.Answer.TrySetException(fault);
        }
        finally
        {
            Next(customer);
        }
    }

    private async Task AloneAsync(Waiting one)
    {
        try
        {
            one.Answer.TrySetResult(await postOne(one.Movement, CancellationToken.None));
        }
        catch (Exception fault)
        {
            one.Answer.TrySetException(fault);
        }
    }
}
