using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Integration.Tests.Operators;

/// <summary>Prices change, are mistyped, and are withdrawn while work runs on them.</summary>
public sealed class PriceTests(OperatorFixture product) : OperatorTest(product)
{
    /// <summary>GPUs of one test alone, whose price it may change.</summary>
    private string Own(string test) => $"{Gpu}-{test}";

    private GpuDeployment On(string gpu, Team team, string name) => Deployment(team, name, change: each => each.Spec.Gpu.Product = gpu);

    [Fact]
    public async Task A_change_is_charged_from_its_instant_and_the_time_before_at_the_old_price()
    {
        var gpu = Own("change");
        await Product.EnsureProductAsync(gpu);
        var team = await OpenTeamAsync("5000.00");
        await CreateAsync(On(gpu, team, "train"));
        var deployment = await UntilRunningAsync(team, "train");
        await UntilSettledAsync(deployment, times: 1);

        await Product.PublishAsync(OperatorFixture.BookOf(gpu), (gpu, "7199.999999999"));
        var changed = new DateTimeOffset(await ScalarAsync<DateTime>($"select max(effective_at) from price_version where item = '{gpu}'"));
        await Eventually.SeeAsync(() => RunsAsync(deployment), runs => runs.Single().SettledUntil > changed + TimeSpan.FromSeconds(1));
        await SeeAsync(team, "train", seen => seen.Status!.HourlyRate == "7199.999999999");

        var run = Assert.Single(await RunsAsync(deployment));
        Assert.Equal(Money.Parse("7199.999999999"), run.PerGpuHour);
        Assert.Equal(
            Rating.Due(changed - run.StartedAt, Money.Parse(OperatorFixture.PerHour), 1) + Rating.Due(run.SettledUntil - changed,
                run.PerGpuHour, 1), run.Total);
        Assert.Equal(2L, await ScalarAsync<long>($"select count(*) from run_interval_rating where pod = '{run.Pod}'"));
        // What was posted before the change still names the version that priced it.
        Assert.Equal(2L, await ScalarAsync<long>(
            $"""
            select count(distinct details ->> 'priceVersion') from ledger_transaction where type = 'GpuUsage'
              and details ->> 'pod' = '{run.Pod}'
            """));
    }

    [Fact]
    public async Task A_book_with_a_bad_price_or_one_that_another_names_is_refused_whole_and_the_old_prices_stay()
    {
        var gpu = Own("bad");
        await Product.EnsureProductAsync(gpu);
        var team = await OpenTeamAsync("5000.00");

        // The server keeps ages in whole seconds: among books of one second, the name must not decide either.
        var late = "a-" + OperatorFixture.BookOf(gpu);
        var conflict = await Product.PublishAsync(late, (gpu, "0.01"), (gpu + "-new", "1.00"));
        Assert.Equal(("False", ConditionReasons.PriceConflict), Ready(conflict));
        Assert.Contains($"PriceBook {OperatorFixture.BookOf(gpu)} already prices {gpu}", conflict.Status!.Conditions!.Single().Message,
            StringComparison.Ordinal);
        Assert.Equal(0L, await ScalarAsync<long>($"select count(*) from price_version where item = '{gpu}-new'"));

        // What is no price at all the schema refuses already, and the book stays as it was.
        foreach (var price in (string[])["99999999999999", "-1.00", "free"])
        {
            var refused = await Assert.ThrowsAsync<HttpOperationException>(() =>
                Product.PublishAsync(OperatorFixture.BookOf(gpu), (gpu, price)));
            Assert.Equal(HttpStatusCode.UnprocessableEntity, refused.Response.StatusCode);
        }

        await CreateAsync(On(gpu, team, "train"));
        var running = await UntilRunningAsync(team, "train");
        Assert.Equal("3600.00", running.Status!.HourlyRate);

        // The conflict ends when the older book no longer names the product.
        await DeleteBookAsync(OperatorFixture.BookOf(gpu));
        await Eventually.SeeAsync(() => Product.Books.ReadAsync<PriceBook>(late, Ended), book =>
            Ready(book) == ("True", ConditionReasons.Published));
        await DeleteBookAsync(late);
    }

    [Fact]
    public async Task A_deleted_book_starts_nothing_new_and_stops_nothing_that_runs()
    {
        var gpu = Own("gone");
        await Product.EnsureProductAsync(gpu);
        var team = await OpenTeamAsync("5000.00");
        await CreateAsync(On(gpu, team, "train"));
        var deployment = await UntilRunningAsync(team, "train");

        await DeleteBookAsync(OperatorFixture.BookOf(gpu));
        await Eventually.SeeAsync(
            () => RefusalOfAsync(On(gpu, team, "new"), dryRun: true), refusal =>
                refusal?.Contains("no PriceBook names a price for it", StringComparison.Ordinal) == true, refusal => refusal ?? "");
        await UntilSettledAsync(deployment, times: 2);
        var run = Assert.Single(await RunsAsync(deployment));
        Assert.True(run.Accrues);
        Assert.Equal(Money.Parse(OperatorFixture.PerHour), run.PerGpuHour);
        Assert.True(IsReady(await ReadAsync(team, "train")));
    }

    private Task<object> DeleteBookAsync(string book)
        => Client.CustomObjects.DeleteClusterCustomObjectAsync(WellKnown.Group, WellKnown.Version, PriceBook.PluralName, book,
            cancellationToken: Ended);

    private static (string, string) Ready(PriceBook book)
    {
        var ready = book.Status!.Conditions!.Single(condition => condition.Type == ConditionTypes.Ready);
        return (ready.Status, ready.Reason);
    }
}
