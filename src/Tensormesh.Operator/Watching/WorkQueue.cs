using System.Threading.Channels;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Keys to reconcile. A key is worked on by one worker at a time; adding it while it is worked on makes it run once more
/// after. Each key has its own back-off, so that a poisoned object cannot starve the others, and at most one alarm, so that
/// the newest decision about when to look again stands. What has changed goes before a backlog of what may have: a customer who applies
/// something does not wait for ten thousand others to be looked at after a restart.
/// </summary>
internal sealed class WorkQueue(TimeProvider time)
{
    private static readonly TimeSpan FirstBackoff = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestBackoff = TimeSpan.FromMinutes(1);
    /// <summary>Timers run on the monotonic clock, alarms on the wall clock: looking again this often bounds what a step of the clock can delay.</summary>
    private static readonly TimeSpan LongestSleep = TimeSpan.FromSeconds(30);

    private readonly Lock gate = new();
    /// <summary>Of so many keys taken, one comes from the backlog even while there is news: neither starves.</summary>
    private const int BacklogShare = 8;

    private readonly Queue<string> news = new();
    private readonly Queue<string> backlog = new();
    /// <summary>One for each key in either queue: what workers wait for.</summary>
    private readonly Channel<bool> ready = Channel.CreateUnbounded<bool>();
    /// <summary>Keys that wait, and whether as news. A key that became news is in both queues, and no longer counts in the backlog.</summary>
    private readonly Dictionary<string, bool> waiting = new(StringComparer.Ordinal);
    private int taken;
    private readonly HashSet<string> working = new(StringComparer.Ordinal);
    private readonly HashSet<string> again = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<Func<bool>>> doubts = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> failures = new(StringComparer.Ordinal);
    private readonly Dictionary<string, DateTimeOffset> alarms = new(StringComparer.Ordinal);
    private readonly PriorityQueue<string, DateTimeOffset> byTime = new();
    private TaskCompletionSource wake = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public int Depth
    {
        get { lock (gate) return waiting.Count; }
    }

    public int Working
    {
        get { lock (gate) return working.Count; }
    }

    public void Add(string key)
    {
        lock (gate)
        {
            if (working.Contains(key)) again.Add(key);
            else Enqueue(key, isNews: true);
        }
    }

    /// <summary>Adds a key of which nobody says that it changed: it is looked at after all that did.</summary>
    public void AddLater(string key)
    {
        lock (gate)
        {
            if (working.Contains(key)) again.Add(key);
            else Enqueue(key, isNews: false);
        }
    }

    /// <summary>
    /// Adds the key unless <paramref name="nothingNew"/> says that there is nothing to look at. Of a key that is worked on it is asked when the work
    /// is done: the echo of a write can come before the answer to it.
    /// </summary>
    public void AddUnless(string key, Func<bool> nothingNew)
    {
        lock (gate)
        {
            if (working.Contains(key))
            {
                if (!doubts.TryGetValue(key, out var asked)) doubts[key] = asked = [];
                asked.Add(nothingNew);
                return;
            }
        }

        if (!nothingNew()) Add(key);
    }

    /// <summary>Sets, moves or (with null) clears the key's alarm.</summary>
    public void AddAt(string key, DateTimeOffset? at)
    {
        lock (gate)
        {
            if (at is not { } due)
            {
                alarms.Remove(key);
                return;
            }

            if (alarms.TryGetValue(key, out var old) && old == due) return;
            alarms[key] = due;
            var sooner = !byTime.TryPeek(out _, out var first) || due < first;
            byTime.Enqueue(key, due);
            if (sooner) wake.TrySetResult();
        }
    }

    /// <summary>Runs until cancelled. <paramref name="work"/> returns when to look at the key again; a fault backs the key off.</summary>
    public async Task RunAsync(int workers, Func<string, CancellationToken, Task<DateTimeOffset?>> work, Action<string, Exception> onFault, CancellationToken cancellation)
    {
        var loops = Enumerable.Range(0, workers).Select(_ => WorkAsync(work, onFault, cancellation));
        await Task.WhenAll([.. loops, RingAsync(cancellation)]).ConfigureAwait(false);
    }

    private async Task WorkAsync(Func<string, CancellationToken, Task<DateTimeOffset?>> work, Action<string, Exception> onFault, CancellationToken cancellation)
    {
        await foreach (var key in ReadQuietly(cancellation).ConfigureAwait(false))
        {
            try
            {
                var next = await work(key, cancellation).ConfigureAwait(false);
                var now = time.GetUtcNow();
                AddAt(key, next <= now ? now + AtOnce(key) : Forgive(key, next));
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            catch (Exception fault) // One of the two loops where everything is caught: the key backs off, the worker lives.
            {
                onFault(key, fault);
                AddAt(key, time.GetUtcNow() + Backoff(key));
            }
            finally
            {
                lock (gate)
                {
                    working.Remove(key);
                    var doubted = doubts.Remove(key, out var asked) && asked.Any(nothingNew => !nothingNew());
                    if (again.Remove(key) | doubted) Enqueue(key, isNews: true);
                }
            }
        }
    }

    /// <summary>What wants another look at once gets it; what never wants anything else is no better than a fault, and must not keep a worker busy for ever.</summary>
    private TimeSpan AtOnce(string key)
    {
        lock (gate)
        {
            if (failures.TryAdd(key, 0)) return TimeSpan.Zero;
        }

        return Backoff(key);
    }

    private DateTimeOffset? Forgive(string key, DateTimeOffset? next)
    {
        lock (gate) failures.Remove(key);
        return next;
    }

    private TimeSpan Backoff(string key)
    {
        lock (gate)
        {
            var count = failures[key] = failures.GetValueOrDefault(key) + 1;
            var delay = FirstBackoff * Math.Pow(2, Math.Min(count - 1, 12));
            return delay < LongestBackoff ? delay : LongestBackoff;
        }
    }

    private async Task RingAsync(CancellationToken cancellation)
    {
        while (!cancellation.IsCancellationRequested)
        {
            TimeSpan sleep;
            Task woken;
            lock (gate)
            {
                if (wake.Task.IsCompleted) wake = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                woken = wake.Task;
                sleep = RingDue();
            }

            using var slept = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            await Task.WhenAny(Task.Delay(sleep, time, slept.Token), woken).ConfigureAwait(false);
            // A sleep that was cut short leaves no timer behind.
            await slept.CancelAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Adds every key whose alarm is due, and says how long to sleep until the next.</summary>
    private TimeSpan RingDue()
    {
        var now = time.GetUtcNow();
        while (byTime.TryPeek(out var key, out var due))
        {
            // An alarm that was moved or cleared is still in the heap under its old time: drop it.
            if (!alarms.TryGetValue(key, out var current) || current != due)
            {
                byTime.Dequeue();
                continue;
            }

            if (due > now)
            {
                // Whole milliseconds, rounded up: a timer that rings early would only sleep again.
                var sleep = TimeSpan.FromMilliseconds(Math.Ceiling((due - now).TotalMilliseconds));
                return sleep < LongestSleep ? sleep : LongestSleep;
            }

            byTime.Dequeue();
            alarms.Remove(key);
            if (working.Contains(key)) again.Add(key);
            else Enqueue(key, isNews: true);
        }

        return LongestSleep;
    }

    private void Enqueue(string key, bool isNews)
    {
        if (waiting.TryGetValue(key, out var asNews) && (asNews || !isNews)) return;
        waiting[key] = isNews;
        (isNews ? news : backlog).Enqueue(key);
        ready.Writer.TryWrite(true);
    }

    /// <summary>The next key, which is worked on from now; null when what was next had become news meanwhile, and was taken as that.</summary>
    private string? Take()
    {
        lock (gate)
        {
            var fromBacklog = backlog.Count > 0 && (news.Count == 0 || taken % BacklogShare == BacklogShare - 1);
            var key = (fromBacklog ? backlog : news).Dequeue();
            if (!waiting.TryGetValue(key, out var asNews) || asNews == fromBacklog) return null;
            taken++;
            waiting.Remove(key);
            working.Add(key);
            return key;
        }
    }

    private async IAsyncEnumerable<string> ReadQuietly([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                await ready.Reader.ReadAsync(cancellation).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                yield break;
            }

            if (Take() is { } key) yield return key;
        }
    }
}
