"""Calibration files in the formats of other programs, shortened."""
# ruff: noqa: E501 - the lines of the files are longer

FILES = {
    "ORB-SLAM2 RGB-D": """\
%YAML:1.0

# Camera Parameters.
Camera.fx: 517.306408
Camera.fy: 516.469215
Camera.cx: 318.643040
Camera.cy: 255.313989
Camera.k1: 0.262383
Camera.k2: -0.953104
Camera.p1: -0.005358
Camera.p2: 0.002628
Camera.k3: 1.163314
Camera.width: 640
Camera.height: 480
Camera.fps: 30.0
Camera.bf: 40.0
Camera.RGB: 1
ThDepth: 40.0
DepthMapFactor: 5000.0
ORBextractor.nFeatures: 1000
""",
    "ORB-SLAM3 stereo": """\
%YAML:1.0
File.version: "1.0"
Camera.type: "PinHole"
Camera1.fx: 458.654
Camera1.fy: 457.296
Camera1.cx: 367.215
Camera1.cy: 248.375
Camera1.k1: -0.28340811
Camera1.k2: 0.07395907
Camera1.p1: 0.00019359
Camera1.p2: 1.76187114e-05
Camera2.fx: 457.587
Camera2.fy: 456.134
Camera2.cx: 379.999
Camera2.cy: 255.238
Camera2.k1: -0.28368365
Camera2.k2: 0.07451284
Camera2.p1: -0.00010473
Camera2.p2: -3.55590700e-05
Camera.width: 752
Camera.height: 480
Camera.fps: 20
Stereo.ThDepth: 60.0
Stereo.T_c1_c2: !!opencv-matrix
  rows: 4
  cols: 4
  dt: f
  data: [0.999997256477797,-0.002317135723275,-0.000343393120620,0.110074137800478,
         0.002312067192432,0.999898048507103,-0.014090668452683,-0.000156612054392,
         0.000376008102320,0.014089835846691,0.999900662638081,0.000889382785432,
         0,0,0,1.000000000000000]
""",
    "ORB-SLAM2 stereo": """\
%YAML:1.0
Camera.fx: 718.856
Camera.fy: 718.856
Camera.cx: 607.1928
Camera.cy: 185.2157
Camera.k1: 0.0
Camera.k2: 0.0
Camera.p1: 0.0
Camera.p2: 0.0
Camera.width: 1241
Camera.height: 376
Camera.fps: 10.0
Camera.bf: 386.1448
""",
    "Kalibr": """\
cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [0.0034823894022493434, 0.0007150348452162257, -0.0020532361418706202, 0.00020293673591811182]
  distortion_model: equidistant
  intrinsics: [190.97847715128717, 190.9733070521226, 254.93170605935475, 256.8974428996504]
  resolution: [512, 512]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [0.9999757172452186, -0.0010, -0.0068, -0.1010]
  - [0.0012, 0.9992, 0.0373, -0.00194]
  - [0.0068, -0.0373, 0.9992, -0.00119]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [0.0034, 0.00176, -0.00266, 0.00032]
  distortion_model: equidistant
  intrinsics: [190.44, 190.43, 252.59, 254.91]
  resolution: [512, 512]
""",
    "OpenCV": """\
%YAML:1.0
---
calibration_time: "Sat 01 Jan 2022"
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 5.3591573396163199e+02, 0., 3.4228315473308373e+02, 0., 5.3591573396163199e+02, 2.3557082909788173e+02, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.6637260909660682e-01, -3.8588898922304653e-02, 1.7831947042852964e-03, -2.8122100441115472e-04, 2.3839153080878486e-01 ]
""",
    "OpenCV XML": """\
<?xml version="1.0"?>
<opencv_storage>
<image_Width>640</image_Width>
<image_Height>480</image_Height>
<Camera_Matrix type_id="opencv-matrix">
  <rows>3</rows>
  <cols>3</cols>
  <dt>d</dt>
  <data>
    6.57e+02 0. 3.195e+02 0. 6.57e+02 2.395e+02 0. 0. 1.</data></Camera_Matrix>
</opencv_storage>
""",
    "ROS file": """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.0, 0.0]
rectification_matrix: {rows: 3, cols: 3, data: [1,0,0,0,1,0,0,0,1]}
projection_matrix: {rows: 3, cols: 4, data: [1,0,0,0,0,1,0,0,0,0,1,0]}
""",
    "ROS message": """\
header:
  seq: 0
  stamp: {secs: 0, nsecs: 0}
height: 480
width: 640
distortion_model: "plumb_bob"
D: [0.0, 0.0, 0.0, 0.0, 0.0]
K: [525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0]
R: [1,0,0,0,1,0,0,0,1]
P: [525.0, 0.0, 319.5, 0.0, 0,525.0, 239.5, 0.0, 0.0, 0,1.0,0]
""",
    "ROS ini": """\
# oST version 5.0 parameters


[image]

width
640

height
480

[narrow_stereo]

camera matrix
685.641304 0.000000 318.000000
0.000000 676.658033 242.000000
0.000000 0.000000 1.000000

distortion
0.1 -0.3 0.001 0.002 0.000000

""",
    "COLMAP": """\
# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 1
1 SIMPLE_RADIAL 3072 2304 2559.81 1536 1152 -0.0204997
""",
    "EuRoC": """\
# General sensor definitions.
sensor_type: camera
comment: VI-Sensor cam0 (MT9M034)
T_BS:
  cols: 4
  rows: 4
  data: [0.0148655429818, -0.999880929698, 0.00414029679422, -0.0216401454975, 0.999557249008, 0.0149672133247, 0.025715529948, -0.064676986768, -0.0257744366974, 0.00375618835797, 0.999660727178, 0.00981073058949, 0.0, 0.0, 0.0, 1.0]
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375]
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
""",
    "DSO": """\
RadTan 458.654 457.296 367.215 248.375 -0.28340811 0.07395907 0.00019359 1.76187114e-05
752 480
crop
640 480
""",
    "Basalt": """\
{"value0": {"T_imu_cam": [{"px": 0.0, "py": 0, "pz": 0, "qx": 0, "qy": 0, "qz": 0, "qw": 1}],
\t"intrinsics": [{"camera_type": "kb4", "intrinsics": {"fx": 380.81, "fy": 380.8, "cx": 510.3, "cy": 514.3, "k1": 0.01, "k2": 0.002, "k3": -0.003, "k4": 0.0004}}],
\t"resolution": [[1024, 1024]]}}
""",
    "VINS": """\
%YAML:1.0
---
model_type: PINHOLE
camera_name: camera
image_width: 752
image_height: 480
distortion_parameters:
   k1: -2.9545645106987750e-01
   k2: 8.6623215640186171e-02
   p1: 2.0132892276082517e-06
   p2: 1.3924531371276508e-05
projection_parameters:
   fx: 4.6115862106007575e+02
   fy: 4.5975286598073296e+02
   cx: 3.6265929181685937e+02
   cy: 2.4852105668448124e+02
""",
    "VINS fisheye": """\
%YAML:1.0
---
model_type: KANNALA_BRANDT
camera_name: cam0
image_width: 512
image_height: 512
projection_parameters:
   k2: 0.0034823894022493434
   k3: 0.0007150348452162257
   k4: -0.0020532361418706202
   k5: 0.00020293673591811182
   mu: 190.97847715128717
   mv: 190.9733070521226
   u0: 254.93170605935475
   v0: 256.8974428996504
""",
    "OKVIS": """\
cameras:
     - {T_SC:
        [1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1],
        image_dimension: [752, 480],
        distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05],
        distortion_type: radialtangential,
        focal_length: [458.654, 457.296],
        principal_point: [367.215, 248.375]}
camera_params:
    camera_rate: 20
""",
    "KITTI": """\
P0: 7.188560000000e+02 0.000000000000e+00 6.071928000000e+02 0.000000000000e+00 0.000000000000e+00 7.188560000000e+02 1.852157000000e+02 0.000000000000e+00 0.000000000000e+00 0.000000000000e+00 1.000000000000e+00 0.000000000000e+00
P1: 7.188560000000e+02 0.000000000000e+00 6.071928000000e+02 -3.861448000000e+02 0.000000000000e+00 7.188560000000e+02 1.852157000000e+02 0.000000000000e+00 0.000000000000e+00 0.000000000000e+00 1.000000000000e+00 0.000000000000e+00
""",
    "stella": """\
Camera:
  name: "TUM"
  setup: "monocular"
  model: "perspective"
  fx: 535.4
  fy: 539.2
  cx: 320.1
  cy: 247.6
  k1: 0.0
  fps: 30.0
  cols: 640
  rows: 480
""",
    "DROID": """\
458.654 457.296 367.215 248.375 -0.28340811 0.07395907 0.00019359 1.76187114e-05
""",
    "matrix": """\
585 0 320
0 585 240
0 0 1
""",
    "Open3D": """\
{"width": 640, "height": 480, "intrinsic_matrix": [525,0,0,0,525,0,319.5,239.5,1]}""",
    "nerfstudio": """\
{"fl_x": 500, "fl_y": 501, "cx": 320, "cy": 240, "w": 640, "h": 480, "frames": []}""",
    "K": """\
width: 640
height: 480
K: [[525,0,319.5],[0,525,239.5],[0,0,1]]
""",
    "Kalibr omni": """\
cam0:
  camera_model: omni
  intrinsics: [1.2, 800, 800, 320, 240]
  distortion_model: radtan
  distortion_coeffs: [0.1,0,0,0]
  resolution: [640, 480]
""",
    "TUM mono": """\
0.535719308086809 0.669566858850269 0.493248545285398 0.500408664348414 0.897966326944875
1280 1024
0.4 0.53 0.5 0.5 0
640 480
""",
    "Basalt double sphere": """\
{"value0": {"T_imu_cam": [{"px": 0.0, "py": 0, "pz": 0, "qx": 0, "qy": 0, "qz": 0, "qw": 1}],
\t"intrinsics": [{"camera_type": "ds", "intrinsics": {"fx": 380.81, "fy": 380.8, "cx": 510.3, "cy": 514.3, "xi": -0.2, "alpha": 0.5}}],
\t"resolution": [[1024, 1024]]}}
""",
    "VINS Mei": """\
%YAML:1.0
model_type: MEI
camera_name: camera
image_width: 752
image_height: 480
mirror_parameters:
   xi: 2.0
""",
    "VINS configuration": """\
%YAML:1.0

#common parameters
imu: 1
num_of_cam: 2
imu_topic: "/imu0"
image0_topic: "/cam0/image_raw"
cam0_calib: "cam0_mei.yaml"
cam1_calib: "cam1_mei.yaml"
image_width: 752
image_height: 480
body_T_cam0: !!opencv-matrix
   rows: 4
   cols: 4
   dt: d
   data: [1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1]
""",
    "ORB-SLAM broken": """\
%YAML:1.0
Camera.fx: abc
Camera.fy: 3
""",
    "Kalibr broken": """\
cam0:
  intrinsics: hello
""",
    "KITTI raw": """\
calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_00: 1.242000e+03 3.750000e+02
P_rect_00: 7.215377e+02 0.000000e+00 6.095593e+02 0.000000e+00 0.000000e+00 7.215377e+02 1.728540e+02 0.000000e+00 0.000000e+00 0.000000e+00 1.000000e+00 0.000000e+00
P_rect_01: 7.215377e+02 0.000000e+00 6.095593e+02 -3.875744e+02 0.000000e+00 7.215377e+02 1.728540e+02 0.000000e+00 0.000000e+00 0.000000e+00 1.000000e+00 0.000000e+00
""",
    "Agisoft": """\
<?xml version="1.0" encoding="UTF-8"?>
<calibration>
  <projection>frame</projection>
  <width>640</width>
  <height>480</height>
  <f>500.0</f>
  <cx>3.0</cx>
  <cy>-4.0</cy>
  <k1>0.1</k1>
  <p1>0.01</p1>
</calibration>
""",
    "OpenCV stereo": """\
%YAML:1.0
---
image_width: 640
image_height: 480
M1: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 400., 0., 320., 0., 400., 240., 0., 0., 1. ]
D1: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ 0.1, 0., 0., 0., 0. ]
M2: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 401., 0., 320., 0., 401., 240., 0., 0., 1. ]
D2: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ 0.1, 0., 0., 0., 0. ]
R: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 1., 0., 0., 0., 1., 0., 0., 0., 1. ]
T: !!opencv-matrix
   rows: 3
   cols: 1
   dt: d
   data: [ -0.12, 0., 0. ]
""",
    "OpenCV JSON": """\
{"image_width": 640, "image_height": 480,
 "camera_matrix": {"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d", "data": [400.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0]},
 "distortion_coefficients": {"type_id": "opencv-matrix", "rows": 1, "cols": 5, "dt": "d", "data": [0.1, 0.0, 0.0, 0.0, 0.0]}}
""",
    "ORB-SLAM raw pair": """\
%YAML:1.0
Camera.fx: 435.2
Camera.fy: 435.2
Camera.cx: 367.4
Camera.cy: 252.2
Camera.bf: 47.9
LEFT.width: 752
LEFT.height: 480
LEFT.K: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [458.6, 0.0, 367.2, 0.0, 457.2, 248.3, 0.0, 0.0, 1.0]
LEFT.R: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
LEFT.P: !!opencv-matrix
   rows: 3
   cols: 4
   dt: d
   data: [435.2, 0.0, 367.4, 0.0, 0.0, 435.2, 252.2, 0.0, 0.0, 0.0, 1.0, 0.0]
RIGHT.width: 752
RIGHT.height: 480
RIGHT.K: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [457.5, 0.0, 379.9, 0.0, 456.1, 255.2, 0.0, 0.0, 1.0]
RIGHT.R: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
RIGHT.P: !!opencv-matrix
   rows: 3
   cols: 4
   dt: d
   data: [435.2, 0.0, 367.4, -47.9, 0.0, 435.2, 252.2, 0.0, 0.0, 0.0, 1.0, 0.0]
""",
}
