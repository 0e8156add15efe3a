using System.Collections.Concurrent;
using k8s.Models;
using Tensormesh.Operator.Watching;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Tests;

public sealed class WorkQueueTests
{
    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_key_added_while_it_is_worked_on_runs_once_more()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var runs = 0;
        var done = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        var release = new TaskCompletionSource();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(4, async (_, _) =>
        {
            if (Interlocked.Increment(ref runs) == 2) done.SetResult();
            entered.TrySetResult();
            await release.Task;
            return null;
        }, (_, _) => { }, stop.Token);

        queue.Add("a");
        await entered.Task.WaitAsync(Ends);
        queue.Add("a");
        queue.Add("a");
        queue.Add("a");
        Assert.Equal(1, runs);
        release.SetResult();
        await done.Task.WaitAsync(TimeSpan.FromSeconds(10), Ends);
        await Until(() => queue is { Depth: 0, Working: 0 });
        Assert.Equal(2, runs);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task A_key_is_never_worked_on_twice_at_once()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var busy = new ConcurrentDictionary<string, int>();
        var overlaps = 0;
        var runs = 0;
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(8, async (key, _) =>
        {
            if (busy.AddOrUpdate(key, 1, (_, count) => count + 1) > 1) Interlocked.Increment(ref overlaps);
            Interlocked.Increment(ref runs);
            await Task.Yield();
            busy.AddOrUpdate(key, 0, (_, count) => count - 1);
            return null;
        }, (_, _) => { }, stop.Token);

        for (var i = 0; i < 5000; i++) queue.Add("key-" + (i % 7));
        await Until(() => queue is { Depth: 0, Working: 0 });
        Assert.Equal(0, overlaps);
        Assert.InRange(runs, 7, 5000);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task A_poisoned_key_backs_off_and_does_not_starve_the_others()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var poisoned = 0;
        var healthy = new ConcurrentDictionary<string, bool>();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(1, (key, _) =>
        {
            if (key == "poison")
            {
                Interlocked.Increment(ref poisoned);
                throw new InvalidOperationException("poison");
            }

            healthy[key] = true;
            return Task.FromResult<DateTimeOffset?>(null);
        }, (_, _) => { }, stop.Token);

        queue.Add("poison");
        for (var i = 0; i < 1000; i++) queue.Add("key-" + i);
        await Until(() => healthy.Count == 1000 && poisoned >= 3);
        // 50, 100, 200 ms: in the time that three tries take, no more than a handful can have happened.
        Assert.InRange(poisoned, 3, 8);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task One_poisoned_object_among_ten_thousand_keeps_none_of_them_waiting_and_costs_next_to_nothing()
    {
        const int keys = 10_000;
        var queue = new WorkQueue(TimeProvider.System);
        var healthy = new ConcurrentDictionary<string, bool>();
        var (poisoned, faults) = (0, 0);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        queue.Add("poison");
        for (var i = 0; i < keys; i++) queue.Add("key-" + i);
        var began = TimeProvider.System.GetTimestamp();
        var running = queue.RunAsync(4, async (key, _) =>
        {
            await Task.Yield();
            if (key == "poison")
            {
                Interlocked.Increment(ref poisoned);
                throw new InvalidOperationException("poison");
            }

            healthy[key] = true;
            return null;
        }, (key, _) =>
        {
            Assert.Equal("poison", key);
            Interlocked.Increment(ref faults);
        }, stop.Token);

        await Until(() => healthy.Count == keys && poisoned >= 4);
        // 50, 100, 200 ms and so on: however long that took, no more tries fit into it.
        var tries = poisoned;
        Assert.InRange(tries, 4, MostTries(TimeProvider.System.GetElapsedTime(began)));
        // New work is done at once, while the poisoned key waits for its next try.
        queue.Add("late");
        await Until(() => healthy.ContainsKey("late"));
        await stop.CancelAsync();
        await running;
        Assert.Equal(poisoned, faults);
    }

    [Fact]
    public async Task A_key_that_always_wants_to_be_looked_at_again_at_once_does_not_spin()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var looks = 0;
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var began = TimeProvider.System.GetTimestamp();
        var running = queue.RunAsync(2, (_, _) =>
        {
            Interlocked.Increment(ref looks);
            return Task.FromResult<DateTimeOffset?>(TimeProvider.System.GetUtcNow());
        }, (_, _) => { }, stop.Token);

        queue.Add("restless");
        await Until(() => looks >= 5);
        await Until(() => TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromSeconds(1));
        // The second look is at once, as it asked; those after it are further and further apart.
        Assert.InRange(looks, 5, MostTries(TimeProvider.System.GetElapsedTime(began)) + 1);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task News_goes_before_a_backlog_and_neither_starves()
    {
        var queue = new WorkQueue(TimeProvider.System);
        for (var i = 0; i < 20; i++) queue.AddLater($"old-{i}");
        for (var i = 0; i < 20; i++) queue.Add($"new-{i}");
        // One that was in the backlog has changed.
        queue.Add("old-19");
        queue.AddLater("new-0");
        Assert.Equal(40, queue.Depth);

        var worked = await AllAsync(queue, 40);

        Assert.Equal(["new-0", "new-1", "new-2", "new-3", "new-4", "new-5", "new-6", "old-0", "new-7"], worked[..9]);
        // Twenty-one that are news and three from the backlog, each of which came when seven others had.
        Assert.Equal(["old-0", "old-1"], worked[..23].Where(key => key.StartsWith("old", StringComparison.Ordinal) && key != "old-19"));
        Assert.Equal("old-19", worked[22]);
        Assert.Equal(40, worked.Distinct().Count());
    }

    [Fact]
    public async Task A_key_that_was_news_and_is_in_the_backlog_again_is_looked_at_again()
    {
        var queue = new WorkQueue(TimeProvider.System);
        queue.AddLater("a");
        queue.Add("a");
        Assert.Equal(["a"], await AllAsync(queue, 1));
        queue.AddLater("a");
        Assert.Equal(["a"], await AllAsync(queue, 1));
        Assert.Equal(0, queue.Depth);
    }

    /// <summary>The keys in the order in which one worker takes them, until none is left.</summary>
    private static async Task<List<string>> AllAsync(WorkQueue queue, int count)
    {
        var worked = new List<string>();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(1, (key, _) =>
        {
            worked.Add(key);
            return Task.FromResult<DateTimeOffset?>(null);
        }, (_, _) => { }, stop.Token);
        await Until(() => worked.Count >= count && queue is { Depth: 0, Working: 0 });
        await stop.CancelAsync();
        await running;
        return worked;
    }

    /// <summary>At 0, 50, 150, 350 ms ... after the start.</summary>
    private static int MostTries(TimeSpan elapsed) => (int)Math.Log2((elapsed.TotalMilliseconds / 50) + 1) + 1;

    [Fact]
    public async Task The_newest_alarm_of_a_key_stands()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var rung = new TaskCompletionSource<DateTimeOffset>();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(1, (_, _) =>
        {
            rung.TrySetResult(TimeProvider.System.GetUtcNow());
            return Task.FromResult<DateTimeOffset?>(null);
        }, (_, _) => { }, stop.Token);

        var now = TimeProvider.System.GetUtcNow();
        var due = now.AddMilliseconds(300);
        queue.AddAt("a", now.AddMilliseconds(10_000));
        queue.AddAt("a", due);
        var at = await rung.Task.WaitAsync(TimeSpan.FromSeconds(9), Ends);
        Assert.True(at >= due, $"rang {(due - at).TotalMilliseconds} ms early");
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task A_cleared_alarm_does_not_ring()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var worked = new ConcurrentQueue<string>();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(1, (key, _) =>
        {
            worked.Enqueue(key);
            return Task.FromResult<DateTimeOffset?>(null);
        }, (_, _) => { }, stop.Token);

        var now = TimeProvider.System.GetUtcNow();
        queue.AddAt("cleared", now.AddMilliseconds(100));
        queue.AddAt("cleared", null);
        queue.AddAt("later", now.AddMilliseconds(200));
        await Until(() => !worked.IsEmpty);
        Assert.Equal(["later"], worked);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public async Task An_echo_that_comes_before_the_answer_to_its_write_is_judged_when_the_work_is_done()
    {
        var queue = new WorkQueue(TimeProvider.System);
        var own = new OwnWrites();
        var runs = new ConcurrentDictionary<string, int>();
        var (entered, release) = (new TaskCompletionSource(), new TaskCompletionSource());
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        var running = queue.RunAsync(1, async (key, _) =>
        {
            runs.AddOrUpdate(key, 1, (_, count) => count + 1);
            entered.TrySetResult();
            await release.Task;
            if (key != "later") own.Add(key, "7");
            return null;
        }, (_, _) => { }, stop.Token);

        queue.Add("echoed");
        await entered.Task.WaitAsync(Ends);
        queue.AddUnless("echoed", () => own.IsEcho(Version("echoed", "6"), Version("echoed", "7")));
        release.SetResult();
        await Until(() => queue is { Depth: 0, Working: 0 });
        queue.AddUnless("echoed", () => own.IsEcho(Version("echoed", "6"), Version("echoed", "7")));
        queue.AddUnless("later", () => own.IsEcho(Version("later", "7"), Version("later", "8")));
        await Until(() => runs.ContainsKey("later"));
        Assert.Equal(1, runs["echoed"]);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public void What_somebody_else_changed_is_never_an_echo()
    {
        var own = new OwnWrites();
        own.Add("a", "7");
        Assert.True(own.IsEcho(Version("a", "6"), Version("a", "7")));
        Assert.False(own.IsEcho(Version("a", "6"), Version("a", "8")));
        Assert.False(own.IsEcho(Version("b", "6"), Version("b", "7")));
        // A missed event: our write is the newest, and another's edit lies between.
        Assert.False(own.IsEcho(Version("a", "6"), Version("a", "7", generation: 2)));
    }

    private static GpuDeployment Version(string uid, string version, long generation = 1)
        => new() { Metadata = new V1ObjectMeta { Uid = uid, ResourceVersion = version, Generation = generation } };

    private static async Task Until(Func<bool> condition)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Ends);
        limit.CancelAfter(TimeSpan.FromSeconds(20));
        while (!condition()) await Task.Delay(5, limit.Token);
    }
}
