using System.Threading.Channels;

namespace Tensormesh.Operator.Watching;

/// <summary>
/// Keys to reconcile. A key is worked on by one worker at a time; adding it while it is worked on makes it run once more
/// after. Each key has its own back-off, so that a poisoned object cannot starve the others, and at most one alarm, so that
/// the newest decision about when to look again stands.
/// </summary>
internal sealed class WorkQueue(TimeProvider time)
{
    private static readonly TimeSpan FirstBackoff = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestBackoff = TimeSpan.FromMinutes(1);
    /// <summary>Timers run on the monotonic clock, alarms on the wall clock: looking again this often bounds what a step of the clock can delay.</summary>
    private static readonly TimeSpan LongestSleep = TimeSpan.FromSeconds(30);

    private readonly Lock gate = new();
    private readonly Channel<string> ready = Channel.CreateUnbounded<string>();
    private readonly HashSet<string> waiting = new(StringComparer.Ordinal);
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
            else if (waiting.Add(key)) ready.Writer.TryWrite(key);
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
            lock (gate)
            {
                waiting.Remove(key);
                working.Add(key);
            }

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
                    var news = doubts.Remove(key, out var asked) && asked.Any(nothingNew => !nothingNew());
                    if ((again.Remove(key) | news) && waiting.Add(key)) ready.Writer.TryWrite(key);
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
            else if (waiting.Add(key)) ready.Writer.TryWrite(key);
        }

        return LongestSleep;
    }

    private async IAsyncEnumerable<string> ReadQuietly([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        while (true)
        {
            string key;
            try
            {
                key = await ready.Reader.ReadAsync(cancellation).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                yield break;
            }

            yield return key;
        }
    }
}
