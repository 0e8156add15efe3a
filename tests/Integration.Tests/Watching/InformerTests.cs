using System.Net;
using Tensormesh.Operator.Watching;
using Tensormesh.TestKit;

namespace Tensormesh.Integration.Tests.Watching;

/// <summary>Everything that can happen to a watch, between a real informer and a real API server.</summary>
public sealed class InformerTests(ClusterFixture fixture) : WatchingTest(fixture)
{
    [Fact]
    public async Task A_list_of_several_pages_and_every_change_after_it_are_seen_once()
    {
        await Task.WhenAll(Enumerable.Range(0, 7).Select(i => CreateAsync($"m{i}")));
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, Watched.Quick with { PageSize = 3 });
        await watched.Informer.Synced.WaitAsync(Ended);
        Assert.Equal("m0=1 m1=1 m2=1 m3=1 m4=1 m5=1 m6=1", watched.Copy);
        Assert.Equal(3, Proxy.Lists);
        await UntilAsync(() => Proxy.OpenWatches == 1);

        await ChangeAsync("m0", "2");
        await DeleteAsync("m1");
        await CreateAsync("m7");
        await watched.SeeAsync("m0=2 m2=1 m3=1 m4=1 m5=1 m6=1 m7=1");
        Assert.Equal(
            [new("m0", "1", "2", true), new("m1", "1", null, false), new("m7", null, "1", false)], watched.Told.Skip(7));
        Assert.Equal(3, Proxy.Lists);
    }

    [Fact]
    public async Task A_watch_that_the_server_ends_in_time_goes_on_from_where_a_bookmark_left_it()
    {
        await CreateAsync("quiet");
        // The server sends a bookmark two seconds before it ends a watch, or when it ends one of less.
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, Watched.Quick with { WatchLength = TimeSpan.FromSeconds(3) });
        await UntilAsync(() => Proxy.OpenWatches == 1);
        var first = VersionOf(Proxy.Requests.Single(request => request.IsWatch));
        // The cluster moves on, and nothing of it concerns this watch.
        await CreateAsync("elsewhere", label: "tests.tensormesh.ai/other");
        await UntilAsync(() => Proxy.Requests.Any(request => request.IsWatch && VersionOf(request) > first));
        Assert.Equal(1, Proxy.Lists);
        await ChangeAsync("quiet", "2");
        await watched.SeeAsync("quiet=2");
        Assert.Equal(1, Proxy.Lists);
    }

    [Fact]
    public async Task A_410_as_an_answer_leads_to_a_new_list()
    {
        await CreateAsync("a");
        Proxy.AnswerGone(2);
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace);
        await UntilAsync(() => Proxy.OpenWatches == 1);
        Assert.Equal((3, 3, 2), (Proxy.Lists, Proxy.Watches, watched.Relists("expired")));
        await ChangeAsync("a", "2");
        await watched.SeeAsync("a=2");
    }

    [Fact]
    public async Task An_expired_watch_that_was_open_finds_what_was_deleted_changed_and_made_again_behind_its_back()
    {
        foreach (var name in (string[])["deleted", "changed", "replaced", "kept"]) await CreateAsync(name);
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace);
        await UntilAsync(() => Proxy.OpenWatches == 1);
        Proxy.DropsEvents = true;
        await DeleteAsync("deleted");
        await ChangeAsync("changed", "2");
        await DeleteAsync("replaced");
        await CreateAsync("replaced", "new");
        await CreateAsync("new");
        Assert.Equal("changed=1 deleted=1 kept=1 replaced=1", watched.Copy);

        Assert.Equal(1, Proxy.InjectError(410, "too old resource version"));
        Proxy.DropsEvents = false;
        await UntilAsync(() => watched.Informer.Count == 4 && Proxy.OpenWatches == 1 && watched.Relists("expired") >= 1);
        await watched.SeeAsync("changed=2 kept=1 new=1 replaced=new");
        Assert.Equal(
            [new("changed", "1", "2", true), new("deleted", "1", null, false), new("new", null, "1", false), new("replaced", "1", "new", false)],
            watched.Told.Skip(4).OrderBy(told => told.Name, StringComparer.Ordinal));
    }

    [Fact]
    public async Task An_error_event_that_is_not_410_a_torn_line_and_a_cut_resume_the_watch_without_a_list()
    {
        await CreateAsync("a");
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace);
        var version = 1;
        foreach (var fault in (Action[])
        [
            () => Proxy.InjectError(500, "etcdserver: request timed out"),
            () => Proxy.Cut(after: """{"type":"MODIFIED","object":{"kind":"ConfigMap","metad"""),
            () => Proxy.Cut(),
            () => Proxy.Inject("""{"type":"SURPRISE","object":{}}"""),
        ])
        {
            await UntilAsync(() => Proxy.OpenWatches == 1);
            await ChangeAsync("a", $"{++version}");
            await watched.SeeAsync($"a={version}");
            var watches = Proxy.Watches;
            fault();
            await UntilAsync(() => Proxy.Watches > watches && Proxy.OpenWatches == 1);
            // Made while nobody watched, or at once after: either way it is told.
            await ChangeAsync("a", $"{++version}");
            await watched.SeeAsync($"a={version}");
        }

        Assert.Equal(1, Proxy.Lists);
        Assert.Equal(9, watched.Told.Count);
    }

    [Fact]
    public async Task A_black_holed_watch_is_given_up_after_the_silence_that_it_may_have()
    {
        await CreateAsync("a");
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, Watched.Quick with { Silence = TimeSpan.FromSeconds(2) });
        await UntilAsync(() => Proxy.OpenWatches == 1);
        // This watch hangs for ever; those after it are answered.
        Proxy.Freeze();
        await ChangeAsync("a", "2");
        await UntilAsync(() => watched.Informer.Staleness > TimeSpan.FromSeconds(1));
        Assert.Equal("a=1", watched.Copy);
        // Its client has given it up and asks again, and is let wait again.
        await UntilAsync(() => watched.Relists("silent") >= 1);
        Assert.True(watched.Informer.Staleness >= TimeSpan.FromSeconds(2));
        Proxy.Heal();
        await watched.SeeAsync("a=2");
        await UntilAsync(() => watched.Informer.Staleness < TimeSpan.FromSeconds(2));
    }

    [Fact]
    public async Task A_list_that_never_comes_is_asked_for_again_and_the_copy_is_incomplete_until_one_comes()
    {
        await CreateAsync("a");
        Proxy.Freeze();
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, Watched.Quick with { ListTimeout = TimeSpan.FromSeconds(1) });
        await UntilAsync(() => Proxy.Lists >= 2);
        Assert.False(watched.Informer.HasSynced);
        Proxy.Heal();
        await watched.SeeAsync("a=1");
        Assert.True(watched.Informer.HasSynced);
    }

    [Fact]
    public async Task A_connection_that_was_lost_without_a_word_is_noticed_long_before_the_silence_of_a_watch_is()
    {
        await CreateAsync("a");
        await using var wire = FaultyWire.Start(Cluster.ApiServer);
        await using var watched = Watched.Start(wire.Lead(Cluster.KubeconfigPath), Namespace, Watched.Quick);
        await watched.Informer.Synced.WaitAsync(Ended);
        await ChangeAsync("a", "2");
        await watched.SeeAsync("a=2");

        wire.BlackHole();
        await ChangeAsync("a", "3");
        await watched.SeeAsync("a=3");
        Assert.Equal(0, watched.Relists("silent"));
        // And one that is reset is not even waited for.
        wire.Cut();
        await ChangeAsync("a", "4");
        await watched.SeeAsync("a=4");
    }

    [Fact]
    public async Task While_every_event_is_dropped_the_periodic_list_alone_keeps_the_copy()
    {
        foreach (var name in (string[])["a", "b"]) await CreateAsync(name);
        Proxy.DropsEvents = true;
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, Watched.Quick with { RelistInterval = TimeSpan.FromSeconds(1) });
        await watched.SeeAsync("a=1 b=1");
        await ChangeAsync("a", "2");
        await DeleteAsync("b");
        await CreateAsync("c");
        await watched.SeeAsync("a=2 c=1");
        Assert.True(watched.Relists("periodic") >= 1);
        Assert.Equal(0, watched.Relists("fault") + watched.Relists("silent") + watched.Relists("expired"));
        Assert.Equal(
            [new("a", "1", "2", true), new("b", "1", null, false), new("c", null, "1", false)],
            watched.Told.Skip(2).OrderBy(told => told.Name, StringComparer.Ordinal));
    }

    [Fact]
    public async Task Late_events_come_in_their_order()
    {
        await CreateAsync("a");
        Proxy.Delay = TimeSpan.FromMilliseconds(200);
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace);
        await UntilAsync(() => Proxy.OpenWatches == 1);
        for (var version = 2; version <= 6; version++) await ChangeAsync("a", $"{version}");
        await watched.SeeAsync("a=6");
        Assert.Equal([null, "1", "2", "3", "4", "5"], watched.Told.Select(told => told.Before));
    }

    [Theory]
    [InlineData(HttpStatusCode.InternalServerError)]
    [InlineData(HttpStatusCode.Forbidden)]
    [InlineData(HttpStatusCode.TooManyRequests)]
    public async Task A_server_that_refuses_is_asked_less_and_less_often(HttpStatusCode status)
    {
        await CreateAsync("a");
        Proxy.Refuses = status;
        var options = new InformerOptions { FirstBackoff = TimeSpan.FromMilliseconds(50), LongestBackoff = TimeSpan.FromMilliseconds(400) };
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, options);
        await UntilAsync(() => Proxy.Lists >= 7);
        // Each pause is at least half of what is due: 50, 100, 200, 400, 400, 400 ms. However slow the machine is, none is shorter.
        var asked = Proxy.Requests.Select(request => request.At.TotalMilliseconds).ToList();
        int[] due = [50, 100, 200, 400, 400, 400];
        Assert.All(due.Select((pause, i) => (Seen: asked[i + 1] - asked[i], Least: pause / 2.0)), gap => Assert.True(gap.Seen >= gap.Least - 2, $"{gap}"));
        Assert.Equal(0, Proxy.Watches);
        Proxy.Heal();
        await watched.SeeAsync("a=1");
    }

    [Fact]
    public async Task A_server_that_ends_every_watch_at_once_or_has_no_version_is_not_asked_in_a_tight_loop()
    {
        await CreateAsync("a");
        var options = new InformerOptions { FirstBackoff = TimeSpan.FromMilliseconds(100), LongestBackoff = TimeSpan.FromMilliseconds(100) };
        Proxy.EndsWatchesAtOnce = true;
        await using var watched = Watched.Start(Proxy.KubeconfigPath, Namespace, options);
        await UntilAsync(() => Proxy.Watches >= 8);
        Proxy.AnswerGone(8);
        await UntilAsync(() => Proxy.Watches >= 16);
        var asked = Proxy.Requests.Where(request => request.IsWatch).Select(request => request.At.TotalMilliseconds).ToList();
        Assert.All(asked.Zip(asked.Skip(1)), pair => Assert.True(pair.Second - pair.First >= 48, $"{pair}"));
        Proxy.Heal();
        await ChangeAsync("a", "2");
        await watched.SeeAsync("a=2");
    }

    private static long VersionOf(ProxiedRequest watch) => long.Parse(
        watch.Query.TrimStart('?').Split('&').Single(part => part.StartsWith("resourceVersion=", StringComparison.Ordinal))["resourceVersion=".Length..],
        System.Globalization.CultureInfo.InvariantCulture);
}
