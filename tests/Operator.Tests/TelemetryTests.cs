using System.Diagnostics;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Logging;
using Tensormesh.Operator.Reconciling;
using Tensormesh.Operator.Telemetry;

namespace Tensormesh.Operator.Tests;

public sealed class TelemetryTests
{
    private const string Uid = "6f1c2d3e-4a5b-4c6d-8e7f-0123456789ab";

    [Theory]
    [InlineData(1, "6f1c2d3e4a5b4c6d8e7f0123456789aa")]
    [InlineData(2, "6f1c2d3e4a5b4c6d8e7f0123456789a9")]
    [InlineData(4_000_000_000_000, null)]
    public void A_changes_trace_is_the_uid_with_the_generation_in_its_last_digits(long generation, string? trace)
    {
        var change = OperatorTrace.ChangeOf(Uid, generation)!.Value.ToHexString();
        Assert.StartsWith("6f1c2d3e4a5b4c6d8e7f0123", change, StringComparison.Ordinal);
        if (trace is not null) Assert.Equal(trace, change);
    }

    [Theory]
    [InlineData(null, 1L)]
    [InlineData("", 1L)]
    [InlineData("no uid", 1L)]
    [InlineData("00000000-0000-0000-0000-000000000000", 1L)]
    [InlineData(Uid, null)]
    public void What_has_no_identity_yet_has_no_trace(string? uid, long? generation) => Assert.Null(OperatorTrace.ChangeOf(uid, generation));

    [Fact]
    public void Without_a_listener_no_span_is_made_and_the_one_around_stays()
    {
        using var around = new Activity("request").Start();
        Assert.False(OperatorTrace.IsOn);
        Assert.Null(OperatorTrace.Review("team-a/train", OperatorTrace.ChangeOf(Uid, 1)));
        Assert.Null(OperatorTrace.Round("GpuDeployment", "team-a/train", null));
        OperatorTrace.Note(null, "Admit");
        Assert.Same(around, Activity.Current);
        Assert.Empty(around.Tags);
    }

    [Theory]
    [InlineData(0, nameof(RunwayBand.UnderAnHour))]
    [InlineData(0.999, nameof(RunwayBand.UnderAnHour))]
    [InlineData(1, nameof(RunwayBand.UnderADay))]
    [InlineData(24, nameof(RunwayBand.UnderAWeek))]
    [InlineData(168, nameof(RunwayBand.Longer))]
    public void An_account_is_counted_by_when_its_money_ends(double hours, string band)
        => Assert.Equal(band, RunwayBands.Of(TimeSpan.FromHours(hours)).ToString());

    [Fact]
    public void An_account_of_which_nothing_runs_is_idle_and_one_that_lasts_for_ever_is_not()
    {
        Assert.Equal(RunwayBand.Idle, RunwayBands.Of(null));
        Assert.Equal(RunwayBand.Longer, RunwayBands.Of(TimeSpan.MaxValue));
    }

    [Theory]
    [InlineData("json", "false", true)]
    [InlineData("text", "true", false)]
    [InlineData("", "true", true)]
    [InlineData(null, null, false)]
    public void Logs_are_json_where_that_is_said_and_in_a_container_where_nothing_is(string? setting, string? container, bool json)
    {
        using var factory = LoggerFactory.Create(logging => logging.AddLogs(Configuration(setting, container)));
        Assert.Equal(json, Logs.IsJson(Configuration(setting, container)));
    }

    [Fact]
    public void A_setting_that_is_neither_is_refused_with_what_to_use()
    {
        var refused = Assert.Throws<InvalidOperationException>(() => Logs.IsJson(Configuration("xml", null)));
        Assert.Equal("Tensormesh:Logs is 'xml': use json or text", refused.Message);
    }

    private static IConfiguration Configuration(string? setting, string? container) => new ConfigurationBuilder()
        .AddInMemoryCollection([KeyValuePair.Create(Logs.Setting, setting), KeyValuePair.Create("DOTNET_RUNNING_IN_CONTAINER", container)]).Build();
}
