using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class HoldTests
{
    private static CreditHold Place(LaunchRequest request, Standing standing) => Holds.HoldFor(request, standing.In(), Policy, Now);

    [Fact]
    public void A_new_hold_covers_the_burn_of_the_window() => Assert.Equal(Hold("10.00", 4), Place(Request(), Standing("10.00")));

    [Fact]
    public void Asking_for_the_same_leaves_it_as_it_is()
    {
        var hold = Hold("3.21", 4) with { PlacedAt = Now.AddDays(-1) };
        Assert.Equal(hold, Place(Request() with { PerGpuHour = Dollars("9.00") }, Standing("10.00", holds: [hold])));
    }

    [Fact]
    public void More_GPUs_add_their_own_burn()
        => Assert.Equal(Hold("8.21", 4), Place(Request(), Standing("10.00", holds: [Hold("3.21", 2)])));

    [Fact]
    public void Fewer_GPUs_cap_it_at_their_burn()
    {
        Assert.Equal(Hold("5.00", 2), Place(Request(2), Standing("10.00", holds: [Hold("9.00", 4)])));
        Assert.Equal(Hold("1.00", 2), Place(Request(2), Standing("10.00", holds: [Hold("1.00", 4)])));
        Assert.Equal(Hold("0.00", 0),
            Place(Request(0) with { Product = null, PerGpuHour = null }, Standing("10.00", holds: [Hold("9.00", 4)])));
    }

    [Fact]
    public void Another_product_gets_a_full_hold_of_its_own()
    {
        var l40s = new CreditHold(Deployment, Acme, new GpuProduct("NVIDIA-L40S"), 8, Dollars("1.00"), Dollars("8.00"), Now);
        Assert.Equal(Hold("10.00", 4), Place(Request(), Standing("10.00", holds: [l40s])));
    }

    [Fact]
    public void What_pods_of_before_have_accrued_does_not_eat_a_new_hold()
    {
        var standing = Standing("100.00", intervals: [Interval(gpus: 4, from: Now.AddHours(-1))]);
        var placed = Place(Request(), standing);
        Assert.Equal(Dollars("10.00"), (standing with { Holds = [placed] }).Held(Now));
    }
}
